"""Subsets of a pool by size and quality."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from budgets.quality import available
from runners.data.index import by_quality


def rows_of(index: pd.DataFrame, *, size: int | None, quality: str) -> NDArray[np.int64]:
    """The rows of a subset: of the best pairs by score, the ``size`` with the lowest hashes.

    Nested in these ways, so that curves compare like with like:

    - In size: at one quality, a smaller subset is part of every larger one.
    - In quality: a whole quality (``size=None``) is part of every wider one. At a given size that cannot be,
      for all have the same number of pairs; there, whatever the wider subset holds that is good enough for
      the narrower one is in the narrower one, too.

    Args:
        index: A pool's, with ``score`` and ``hash``.
        size: How many pairs; ``None`` for all of that quality.
        quality: ``all`` or ``topN``, the best N % by score (``budgets.quality.available`` of them).

    Returns:
        Positions in the index, ascending, int64 (size,).

    Raises:
        ValueError: If the pool has fewer pairs of that quality than asked for, or lacks the scores.
    """
    score, content = index["score"].to_numpy(), index["hash"].to_numpy()
    kept = available(len(index), quality)
    if size is not None and not 1 <= size <= kept:
        raise ValueError(
            f"asked for {size:,} pairs of quality '{quality}'; "
            f"the pool has {kept:,} of that quality, {len(index):,} in all"
        )
    if quality == "all":
        best = np.arange(len(index))
    else:
        scored = int(np.count_nonzero(~np.isnan(score)))
        if scored < kept:
            raise ValueError(
                f"quality '{quality}' needs scores; {scored:,} of the pool's {len(index):,} pairs have one; "
                "score the pool, or use quality 'all'"
            )
        best = by_quality(score, content)[:kept]
    if size is not None:
        best = best[np.lexsort((best, content[best]))[:size]]
    return np.sort(best)
