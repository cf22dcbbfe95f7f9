"""Content of the file that a running trial writes every second."""

from collections.abc import Mapping


def progress(samples_seen: int, **changes: object) -> Mapping[str, object]:
    """Return the content of a trial's ``progress.json``."""
    return {
        "samples_seen": samples_seen,
        "samples_planned": 1000,
        "shared_samples": 0,
        "train_flops": 2000,
        "loss": 1.25,
        "losses": [3.0, 2.0, 1.0],
        "curve": [],
        "samples_per_s": 500.0,
        "pid": 1,
    } | changes
