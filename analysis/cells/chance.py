"""The error of a model that guesses, for well-known metrics."""

import re

_TOP = re.compile(r"(?:top|few_shot_\d+_top|probe_top)(\d+)")
_IMAGENET, _EMBEDDED = 1000, 100
_CLASSES = {
    **dict.fromkeys(("held-out", "seen", "style", "validation"), _EMBEDDED),
    **dict.fromkeys(("imagenet", "imagenet1k", "imagenet-real", "imagenet-sketch", "imagenet-v2"), _IMAGENET),
    "imagenet-a": 200, "imagenet-r": 200, "imagenet-o": 200, "objectnet": 113, "cifar10": 10, "cifar100": 100,
    "food101": 101, "sun397": 397, "caltech101": 102,
}  # fmt: skip
"""Number of classes of each evaluation set; the classes of the embedded pool are its concepts."""


def chance_error(metric: str) -> float:
    """Return 1 − the metric of a model that guesses; NaN when unknown.

    Args:
        metric: ``<evaluation set>/<metric>``. Known: top-k accuracies on well-known sets and on the sets of
            the embedded pool.
    """
    name, _, what = metric.rpartition("/")
    classes = _CLASSES.get(re.sub(r"[_ ]", "-", name.lower()).replace("imagenetv2", "imagenet-v2"))
    match = _TOP.fullmatch(what.replace("acc", "top"))
    if classes is None or (match is None and what != "mean_per_class"):
        return float("nan")
    return 1.0 - (int(match[1]) if match else 1) / classes
