"""The command line. Bad input ends with one clear message and exit code 2.

Each command imports what it needs when it runs, so that ``--help`` and ``plan`` answer at once.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from study.state.imported import Imported
    from study.state.study import Study

_DECLARATIONS = Path(__file__).parent / "declare" / "declarations"
EXIT_FAILED_TRIALS = 1
EXIT_BAD_INPUT = 2
EXIT_OVER_BUDGET = 3
EXIT_STOPPED = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The words after ``python -m study``; those of the process by default.

    Returns:
        0; 1 when trials failed; 2 for bad input; 3 when the study budget had no room for all trials; 4
        when a run was told to stop before its end.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, data, evaluation = _parser()
    if words[:1] == ["data"]:
        from study.commands.data import add_data_options  # noqa: PLC0415 - --help needs none of it

        add_data_options(data)
    if words[:1] == ["evaluate"]:
        from study.commands.evaluate import add_evaluate_options  # noqa: PLC0415 - the same

        add_evaluate_options(evaluation)
    options = parser.parse_args(words)
    try:
        return _run_command(options)
    except BrokenPipeError:  # a reader such as `head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"study: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("study: stopped; what is finished is kept, the same command goes on", file=sys.stderr)
        return 128 + 2


def _run_command(options: argparse.Namespace) -> int:
    from study.declare.load import find_declaration, load_declaration  # noqa: PLC0415
    from study.state.imported import find_imported, imported_names  # noqa: PLC0415 - --help needs none of it
    from study.state.study import find_study  # noqa: PLC0415

    command: Callable[[Study | Imported | None, argparse.Namespace], int] = options.command
    if getattr(options, "study", None) is None:  # the command is about no study, or not about this one
        return command(None, options)
    results = Path(options.results or "results")
    imported = find_imported(options.study, results)
    if imported is not None:
        if command not in {_report, _recommend}:
            raise ValueError(f"{imported.folder} was imported, not run: only report and recommend read it")
        return command(imported, options)
    declaration = load_declaration(find_declaration(options.study, imported=imported_names(results)))
    study = find_study(declaration, results=options.results, pools=options.pools)
    if find_imported(declaration.name, study.folder.parent) is not None:
        raise ValueError(f"{study.folder} is an imported study; give the declaration another name (study:)")
    if command in {_run, _status, _report, _recommend, _export}:
        _refresh(study, needed=command is _run)
    return command(study, options)


def _refresh(study: "Study", *, needed: bool) -> None:
    """Brings what the storage of a study has into its folder here, where that storage is no folder."""
    try:
        study.storage.refresh()
    except (ValueError, OSError) as error:
        if needed:
            raise
        print(f"study: {error}; what follows is as it was here", file=sys.stderr)


def _parser() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, argparse.ArgumentParser]:
    """Gives the parser, and those of ``data`` and ``evaluate``, which get their options when asked for."""
    shipped = ", ".join(sorted(path.stem for path in _DECLARATIONS.glob("*.yaml")))
    parser = argparse.ArgumentParser(
        prog="python -m study", description="Finds out how to spend a fixed amount of compute on CLIP."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="write a commented declaration to start from")
    new.add_argument("name", help="of the study: NAME.yaml is written")
    new.set_defaults(command=_new)
    for name, command, about in (
        ("plan", _plan, "show the trials of a study, what each costs, and what was left out and why"),
        ("calibrate", _calibrate, "measure each kind of trial on this machine, for prices and forecasts"),
        ("run", _run, "run the trials on Ray; what is finished is never run again"),
        ("stop", _stop, "tell a run to stop: its trials write checkpoints and leave; `run` goes on later"),
        ("status", _status, "show what is done, running and failed, and the FLOPs spent"),
        ("report", _report, "fit, mark the best configurations, draw figures, write tables and report.html"),
        ("recommend", _recommend, "say what to train for a compute and a data budget, and how sure that is"),
        ("export", _export, "write a trial's model as a folder that open_clip loads by itself"),
    ):
        sub = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        sub.add_argument(
            "study",
            nargs="?" if name in {"recommend", "report"} else None,
            help=f"a declaration's file, or one that comes with the project: {shipped}"
            + ("; or the name of an imported study" if name in {"recommend", "report"} else ""),
        )
        sub.add_argument(
            "--results", metavar="FOLDER", help="where studies are kept (results, in storage: if declared)"
        )
        sub.add_argument(
            "--pools",
            metavar="FOLDER",
            help="where generated pools are kept (pools, likewise)",
        )
        sub.set_defaults(command=command)
        if name == "plan":
            _add_plan_options(sub)
        if name == "calibrate":
            _add_calibrate_options(sub)
        if name == "status":
            sub.add_argument("--watch", action="store_true", help="go on until the run has ended")
            sub.add_argument("--json", action="store_true", help="as one JSON object, for programs")
        if name == "report":
            sub.add_argument(
                "--paper",
                action="store_true",
                help="also draw the paper's digitised tables, beside the study's figures if one is named",
            )
        if name == "recommend":
            _add_recommend_options(sub)
        if name == "export":
            sub.add_argument("trial", help="its id, as results and `plan --format csv` have it")
            sub.add_argument("folder", type=Path, help="the folder to make")
        if name == "run":
            _add_run_options(sub)
        if name == "stop":
            sub.add_argument(
                "--wait", type=float, default=60.0, metavar="SECONDS", help="for its end, at most (60)"
            )
    _add_import(commands.add_parser)
    data, evaluation = (
        commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        for name, about in (
            ("data", "build, inspect and score a pool of image-text pairs; check evaluation sets"),
            ("evaluate", "evaluate any open_clip model: zero-shot, retrieval, linear and few-shot probes"),
        )
    )
    data.set_defaults(command=_data)
    evaluation.set_defaults(command=_evaluate)
    completion = commands.add_parser("completion", help="print a script that completes this command in bash")
    completion.set_defaults(command=_completion)
    return parser, data, evaluation


class _Version(argparse.Action):
    """Shows the version; looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Prints it and ends."""
        from importlib.metadata import version  # noqa: PLC0415 - few ask

        print(f"clip-scaling-study {version('clip-scaling-study')}")
        parser.exit()


def _add_plan_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--format",
        choices=("text", "csv", "json", "parquet"),
        default="text",
        help="a table to read (text), or every trial and every cell left out as csv, json or parquet",
    )
    sub.add_argument(
        "--output", metavar="FILE", help="where to write it (standard output; parquet needs a file)"
    )
    sub.add_argument(
        "--explain",
        metavar="CELL",
        help="show the whole arithmetic of one cell: a trial's id, or words such as 'ViT-B-32 slip top40'",
    )


def _add_calibrate_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--device", metavar="DEVICE", help="what this machine's GPU is called in prices (that of cluster:)"
    )
    sub.add_argument("--seconds", type=float, default=60.0, help="how long it may take, about (60)")


def _add_run_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--quiet", action="store_true", help="write notes and failures only, and no live view")
    sub.add_argument(
        "--address",
        metavar="ADDRESS",
        help="HOST:PORT of a running Ray cluster's head, or local for one on this machine "
        "(RAY_ADDRESS, else local)",
    )
    sub.add_argument(
        "--backend",
        choices=("ray", "local"),
        default="ray",
        help="what runs the trials: Ray, or processes of this machine without it, to debug (ray)",
    )
    sub.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CELLS",
        help="run these trials alone: an id, or words of their cells, as 'slip top40'; may be repeated",
    )
    sub.add_argument("--retry-failed", action="store_true", help="run again what failed in an earlier run")
    sub.add_argument("--dry-run", action="store_true", help="say what would be run, and change nothing")


def _add_import(add_parser: "Callable[..., argparse.ArgumentParser]") -> None:
    sub = add_parser(
        "import",
        help="read anyone's table of results, by a map of its columns, as a study to report",
        description="Reads anyone's table of results, by a map of its columns, as a study to report.",
    )
    sub.add_argument("table", type=Path, help="a CSV or parquet file, one row a trial")
    sub.add_argument(
        "--map", required=True, metavar="MAP", help="its column map: a YAML file, or one that comes along"
    )
    sub.add_argument("--name", metavar="NAME", help="of the study: results/NAME is written (the map's)")
    sub.add_argument("--results", metavar="FOLDER", help="where studies are kept (results)")
    sub.set_defaults(command=_import)


def _add_recommend_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--flops", required=True, metavar="FLOPS", help="training FLOPs of one trial, as 3e18")
    sub.add_argument("--pairs", required=True, metavar="PAIRS", help="pairs in your pool, unfiltered, as 10M")
    sub.add_argument(
        "--limit", type=float, default=30.0, help="times beyond the measured budgets, at most (30)"
    )
    sub.add_argument(
        "--prior",
        metavar="MAP",
        help="learn from a table by this column map instead of a study, such as paper-one-epoch",
    )
    sub.add_argument("--table", type=Path, metavar="FILE", help="table of the prior (the paper's readings)")


def _plan(study: "Study", options: argparse.Namespace) -> int:
    from study.commands.plan import plan_command  # noqa: PLC0415

    output = None if options.output is None else Path(options.output)
    for line in plan_command(study, form=options.format, output=output, cell=options.explain):
        print(line)
    sys.stdout.flush()
    return 0


def _calibrate(study: "Study", options: argparse.Namespace) -> int:
    from study.commands.calibrate import calibrate_study  # noqa: PLC0415 - torch takes seconds

    for line in calibrate_study(study, device_name=options.device, seconds=options.seconds):
        print(line, flush=True)
    return 0


def _run(study: "Study", options: argparse.Namespace) -> int:
    from study.commands.run import run_study, would_run  # noqa: PLC0415
    from study.show.progress import Progress, remaining_text  # noqa: PLC0415 - torch takes seconds
    from study.state.study import plan_study  # noqa: PLC0415

    plan = plan_study(study)
    only, retry_failed, local = options.only, options.retry_failed, options.backend == "local"
    if options.dry_run:
        for line in would_run(study, plan, only=only, retry_failed=retry_failed):
            print(line)
        return 0
    console = _console()
    with Progress(study.declaration.metric, console, quiet=options.quiet) as progress:
        result = run_study(
            study,
            plan,
            progress,
            address=options.address,
            local=local,
            only=only,
            retry_failed=retry_failed,
        )
    if not options.quiet:
        console.print(f"results in {study.folder}", highlight=False)
    for line in remaining_text(result.remaining, result.plan):
        console.print(line, highlight=False, markup=False)
    if result.stopped:
        return EXIT_STOPPED
    if result.remaining:
        return EXIT_OVER_BUDGET
    return EXIT_FAILED_TRIALS if result.failures else 0


def _stop(study: "Study", options: argparse.Namespace) -> int:
    for line in study.storage.stop(wait_s=options.wait):
        print(line, flush=True)
    return 0


def _status(study: "Study", options: argparse.Namespace) -> int:
    from study.commands.status import show_status, status_json  # noqa: PLC0415

    if options.json:
        if options.watch:
            raise ValueError("--json writes one object: it does not go with --watch")
        print(status_json(study))
    else:
        show_status(_console(), study, watch=options.watch)
    return 0


def _import(_study: None, options: argparse.Namespace) -> int:
    from study.commands.import_table import import_study  # noqa: PLC0415

    results = Path(options.results or "results")
    for line in import_study(options.table, options.map, name=options.name, results=results):
        print(line)
    return 0


def _report(study: "Study | Imported | None", options: argparse.Namespace) -> int:
    from study.commands.report import report_imported, report_paper, report_study  # noqa: PLC0415
    from study.state.imported import Imported  # noqa: PLC0415

    if study is None and not options.paper:
        raise ValueError("which study? Give a declaration, or --paper for the paper's own figures")
    if study is not None:
        for line in report_imported(study) if isinstance(study, Imported) else report_study(study):
            print(line)
    if options.paper:
        for line in report_paper(Path(options.results or "results"), study):
            print(line)
    return 0


def _recommend(study: "Study | Imported | None", options: argparse.Namespace) -> int:
    from study.commands.recommend import recommend_from  # noqa: PLC0415

    for line in recommend_from(
        study,
        flops=options.flops,
        pairs=options.pairs,
        limit=options.limit,
        prior=options.prior,
        table=options.table,
    ):
        print(line)
    return 0


def _export(study: "Study", options: argparse.Namespace) -> int:
    from study.commands.export import export_trial  # noqa: PLC0415

    print(export_trial(study, options.trial, options.folder))
    return 0


def _new(_study: None, options: argparse.Namespace) -> int:
    from study.commands.new import new_study  # noqa: PLC0415

    for line in new_study(options.name):
        print(line)
    return 0


def _data(_study: None, options: argparse.Namespace) -> int:
    from study.commands.data import run_data  # noqa: PLC0415

    return run_data(options, _console())


def _evaluate(_study: None, options: argparse.Namespace) -> int:
    from study.commands.evaluate import run_evaluate  # noqa: PLC0415

    return run_evaluate(options, _console())


def _completion(_study: None, _options: argparse.Namespace) -> int:
    from study.commands.completion import bash_script  # noqa: PLC0415
    from study.commands.data import add_data_options  # noqa: PLC0415 - torch takes seconds
    from study.commands.evaluate import add_evaluate_options  # noqa: PLC0415 - the same

    parser, data, evaluation = _parser()
    add_data_options(data)
    add_evaluate_options(evaluation)
    print(bash_script(parser, tuple(sorted(path.stem for path in _DECLARATIONS.glob("*.yaml")))), end="")
    return 0


def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415

    console = Console(soft_wrap=True)
    # A pipe has no width; a table is cut for nobody then.
    return console if console.is_terminal else Console(soft_wrap=True, width=160)
