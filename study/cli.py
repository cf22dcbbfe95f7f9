"""The command line: list of commands, error messages and exit codes.

Exit codes:

- 0: done.
- 1: part of the work failed (`run`: a trial; `check`: a check; `data eval-sets`: a set).
- 2: bad input, with one message.
- 3: `run` left trials out because the study budget has no room for them.
- 4: SIGTERM, SIGUSR1, SIGHUP or `stop` ended the command; `run`: before all trials had ended.
- 5: the Ray cluster died (a local Ray is restarted once first); the same command continues.
- 130: interrupted from the keyboard.
"""

import argparse
import gc
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from budgets.names import printable, without_secrets
from runners.host.faults import AskedToStop, Notice, shield, unshield
from runners.scheduling.backend import ClusterLostError
from study.commands import (
    calibrate,
    check,
    completion,
    evaluate,
    export,
    import_table,
    new,
    plan,
    recommend,
    report,
    run,
    schema,
    status,
    stop,
)
from study.commands.command import Command, add_commands, help_with
from study.commands.pools import data, pool_build, pool_score

COMMANDS: tuple[Command, ...] = (
    new, schema, plan, check, calibrate, run, stop, status, report, recommend, export, import_table,
    data, evaluate, completion,
)  # fmt: skip
EXIT_BAD_INPUT = 2
EXIT_STOPPED = run.EXIT_STOPPED
EXIT_CLUSTER_LOST = 5
EXIT_INTERRUPTED = 128 + 2
_CONTINUING = {run.NAME, pool_build.NAME, pool_score.NAME}
"""Commands that an interruption leaves halfway; the same command continues."""
_AROUND = 100  # signs before and after one that is not UTF-8
_ONCE_MORE = "STUDY_RAY_STARTED_ANEW"  # set in the environment of a command whose Ray has died before


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command by the words after ``python -m study`` (default: those of this process).

    Returns the exit code.
    """
    if arguments is not None:  # a script calls, which takes signals by itself
        return _run(arguments, None)
    notice = Notice(at_once=True)
    with notice.listening():
        try:
            unshield()  # a command that is started again begins shielded
            return _run(None, notice)
        except AskedToStop:
            print(f"study: stopped by {notice.by}; the same command continues", file=sys.stderr)
            return EXIT_STOPPED
        finally:
            shield()  # Python gives its handlers up before the process has ended


def _run(arguments: Sequence[str] | None, notice: Notice | None) -> int:
    save_processor_time()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an encoding without … or × must not end a run
    options = make_parser().parse_args(arguments)
    options.notice = notice
    if _ONCE_MORE in os.environ and hasattr(options, "again"):
        options.again = []  # recorded before Ray died: the attempts are in the plan
    # New processes would import it: a script that calls this would begin again in each, and one read from
    # stdin would not be found.
    main_module = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        _require_working_folder()
        return {command.NAME: command for command in COMMANDS}[options.command].run(options)
    except BrokenPipeError:  # a reader such as `head` closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"study: {printable(without_secrets(_words(error)))}", file=sys.stderr)
        return getattr(error, "exit_code", EXIT_BAD_INPUT)
    except ClusterLostError as error:
        _leave_lost_cluster(error, once_more=error.own and arguments is None)
    except KeyboardInterrupt:
        message = "interrupted"
        if getattr(options, "watch", False):
            message = "no longer watching; a run goes on"
        elif getattr(options, "data_command", options.command) in _CONTINUING:
            message += "; finished work is kept, run the same command again to continue"
        print(f"study: {message}", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        sys.modules["__main__"] = main_module


def _words(error: Exception) -> str:
    """Return the message of bad input; of a name that is not UTF-8, which the error has apart, the name."""
    if not isinstance(error, UnicodeEncodeError):
        return str(error)
    return f"{error.object[max(0, error.start - _AROUND) : error.end + _AROUND]} is not UTF-8: rename it"


def _require_working_folder() -> None:
    """Raise a ValueError in a folder that was deleted: relative paths and new processes start from it."""
    try:
        Path.cwd()
    except FileNotFoundError:
        gone = os.environ.get("PWD", "")
        raise ValueError(f"the working folder {gone} was deleted: change to one that exists") from None


def save_processor_time() -> None:
    """Search for garbage less often, and let numpy multiply matrices in one thread.

    What a command imports, plans or reads lives until it ends; the search would be a fifth of its start,
    and of planning 100,000 trials. The matrices of a joint law are small: on two cores a second thread costs
    three times the processor time of a report and saves none. This takes effect if numpy is not imported yet.
    """
    gc.set_threshold(50_000, 20)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _leave_lost_cluster(error: ClusterLostError, *, once_more: bool) -> NoReturn:
    """Replace this process by the same command if ``once_more``, but only once; else exit with the exit code.

    Either way nothing of the dead Ray is left. At a normal exit, its library would wait a minute for its
    head.
    """
    once_more = once_more and _ONCE_MORE not in os.environ
    follows = "Ray is started once more" if once_more else "run the same command again to continue"
    print(f"study: {error}. Finished trials and checkpoints are kept; {follows}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    if once_more:
        os.environ[_ONCE_MORE] = "1"
        shield()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this command
    os._exit(EXIT_CLUSTER_LOST)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    called = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        prog=called if called == "scaling-study" else "python -m study",
        description="Find out how to spend a fixed amount of compute on CLIP.",
        **help_with(("new first", "plan first.yaml", "run first.yaml", "report first.yaml")),
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.set_defaults(parser=parser)
    add_commands(parser, COMMANDS, dest="command")
    return parser


class _Version(argparse.Action):
    """The option ``--version``; looks the version up only on request."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print the version and exit."""
        from importlib.metadata import version  # noqa: PLC0415 - few ask

        print(f"clip-scaling-study {version('clip-scaling-study')}")
        parser.exit()
