"""``python -m study calibrate``: measure samples/s and memory of each kind of trial on this machine."""

from argparse import ArgumentParser, Namespace

from study.commands.command import add_study_options, declared_study, number, show_all

NAME = "calibrate"
HELP = "measure each kind of trial on this machine, for prices and forecasts"
EXAMPLES: tuple[str, ...] = ("demo", "my-study.yaml --device h100-sxm --seconds 300")


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser)
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="name of this machine's GPU in the price table (default: that of cluster:)",
    )
    parser.add_argument(
        "--seconds",
        type=number(1, 10**6),
        default=60.0,
        help="approximate time limit in seconds (default: 60)",
    )


def run(options: Namespace) -> int:
    """Measure, write ``throughput.json``, and print the measurements."""
    from study.run.calibration import calibrate_study

    study = declared_study(options)
    show_all(calibrate_study(study, device_name=options.device, seconds=options.seconds))
    return 0
