"""``python -m study status``: show a study's progress, once or repeatedly, as text or JSON."""

from argparse import ArgumentParser, Namespace

from study.commands.command import add_study_options, add_why_option, declared_study

NAME = "status"
HELP = "show the trials done, running and failed, and the FLOPs spent"
EXAMPLES: tuple[str, ...] = ("demo", "demo --watch", "demo --json")


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser)
    add_why_option(parser)
    parser.add_argument("--watch", action="store_true", help="update until the run has ended")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def run(options: Namespace) -> int:
    """Print the status as a table or as JSON."""
    from study.show.status_view import show_status, status_json
    from study.show.terminal import PlainConsole

    study = declared_study(options, refresh=True)
    if options.json:
        if options.watch:
            raise ValueError("--json prints one object: it can't be combined with --watch")
        print(status_json(study, why=options.why))
    else:
        show_status(PlainConsole(), study, watch=options.watch, why=options.why)
    return 0
