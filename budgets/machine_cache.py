"""This machine's cache: counted models, pieces of remote shards, decoded sets, subsets, copies of buckets.

It lies in `budgets` because planning, which imports no runner, reads the counted models from it.
"""

import os
from pathlib import Path

CACHE = "STUDY_CACHE"
"""Environment variable that names this machine's cache folder."""


def machine_cache() -> Path:
    """Return this machine's folder for what can be made or downloaded again."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE) or Path(home) / "clip-scaling-study").absolute()
