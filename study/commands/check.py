"""``python -m study check``: try everything that a run will need, before it spends anything."""

from argparse import ArgumentParser, Namespace

from study.commands.command import add_backend_options, add_study_options, declared_study, show, without_ray

NAME = "check"
HELP = "try the cluster, its nodes and each kind of trial before a run spends anything"
EXAMPLES: tuple[str, ...] = ("demo --backend local", "my-study.yaml --address HEAD:6379", "small --json")

EXIT_FAILED_CHECKS = 1


def add_options(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add_study_options(parser)
    add_backend_options(parser)
    parser.add_argument("--json", action="store_true", help="write one JSON object per check, for programs")


def run(options: Namespace) -> int:
    """Print one line per check; return 1 if one failed.

    Raises:
        ValueError: The study cannot be planned.
    """
    import json
    from dataclasses import asdict

    from study.run.run_context import open_backend
    from study.run.study_preflight import preflight

    local, study, failed = without_ray(options), declared_study(options), 0
    where = "backend" if local else "Ray"
    for check in preflight(study, lambda: open_backend(options.address, local=local), where=where):
        failed += check.verdict == "failed"
        if options.json:
            print(json.dumps(asdict(check)), flush=True)
        else:
            place = f"{check.node}: " if check.node else ""
            advice = f"; {check.advice}" if check.advice else ""
            show(f"{check.verdict:6}  {place}{check.what}: {check.found}{advice}")
    return EXIT_FAILED_CHECKS if failed else 0
