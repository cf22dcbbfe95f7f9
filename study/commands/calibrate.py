"""``python -m study calibrate``: samples a second and memory of each kind of trial on this machine."""

from argparse import ArgumentParser, Namespace

from study.commands.command import add_study_options, declared_study

NAME = "calibrate"
HELP = "measure each kind of trial on this machine, for prices and forecasts"
EXAMPLES: tuple[str, ...] = ("demo", "my-study.yaml --device h100-sxm --seconds 300")


def add_options(parser: ArgumentParser) -> None:
    """Adds its arguments."""
    add_study_options(parser)
    parser.add_argument(
        "--device", metavar="DEVICE", help="what this machine's GPU is called in prices (that of cluster:)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it may take, about (60)")


def run(options: Namespace) -> int:
    """Measures, writes ``throughput.json``, and prints what was measured."""
    from study.run.calibration import calibrate_study

    study = declared_study(options)
    for line in calibrate_study(study, device_name=options.device, seconds=options.seconds):
        print(line, flush=True)
    return 0
