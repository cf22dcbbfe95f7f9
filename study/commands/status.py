"""``python -m study status``: where a study stands, once or again and again, for people or for programs."""

from argparse import ArgumentParser, Namespace

from study.commands.command import add_study_options, open_console, refreshed_study

NAME = "status"
HELP = "show what is done, running and failed, and the FLOPs spent"
EXAMPLES: tuple[str, ...] = ("demo", "demo --watch", "demo --json")


def add_options(parser: ArgumentParser) -> None:
    """Adds its arguments."""
    add_study_options(parser)
    parser.add_argument("--watch", action="store_true", help="go on until the run has ended")
    parser.add_argument("--json", action="store_true", help="as one JSON object, for programs")


def run(options: Namespace) -> int:
    """Prints the table, or the object."""
    from study.show.status_view import show_status, status_json

    study = refreshed_study(options)
    if options.json:
        if options.watch:
            raise ValueError("--json writes one object: it does not go with --watch")
        print(status_json(study))
    else:
        show_status(open_console(), study, watch=options.watch)
    return 0
