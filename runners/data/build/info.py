"""Summary of a pool: counts, sizes, score histogram, left-out samples by reason, and a contact sheet."""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from textwrap import wrap

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from budgets.planning.scoring import score_flops, score_words
from budgets.quality import count_available
from budgets.quantity import format_flops, plural
from runners.data.build.source import not_indexed, not_pairs
from runners.data.index.parts import SCORE
from runners.data.index.selection import BINS, bins, nth_values
from runners.data.pool.damage import NOT_READABLE
from runners.data.pool.pool import Pool, scorer_costs
from runners.data.pool.reader import read_pairs
from runners.store.copies import pool_at
from runners.store.files import new_file

_BARS, _BAR_WIDTH = 12, 40
_TILE, _TEXT, _ACROSS = 96, 36, 5
_MOST_SHOWN = 5
_LINE = 16  # characters per line below a picture


def summarise(place: str | Path, sheet: Path | None, _item: int) -> list[str]:
    """Return the summary of a pool in a folder or below a URL, as a task of workers."""
    pool = Pool.open(pool_at(place))
    lines = list(info_lines(pool))
    if sheet is not None:
        contact_sheet(pool, sheet)
        lines.append(str(sheet))
    return lines


def info_lines(pool: Pool) -> Iterator[str]:
    """Yield a summary of a pool, line by line."""
    name, size = pool.name, sum(pool.shards.values())
    yield f"pool {name}: {pool.count:,} pairs in {plural(len(pool.shards), 'shard')}, {size / 1e6:,.1f} MB"
    yield f"fingerprint {pool.fingerprint}"
    if message := not_indexed(pool):
        yield message
    indexed = pool.provenance.get("in_place") and not pool.copy_of and pool.place.location.local
    if indexed and (message := not_pairs(pool.path)):
        yield message
    for name, value in pool.provenance.items():
        yield f"{name.replace('_', ' ')}: {value}"
    for what, unit in (("width", "pixels"), ("height", "pixels"), ("length", "bytes"), ("tokens", "tokens")):
        if what in pool.index.columns:
            # Quantiles as N-th highest values: the 5 % quantile is near the last of them.
            low, middle, high = nth_values(
                pool.index, what, [1 + int((1 - share) * (pool.count - 1)) for share in (0.05, 0.5, 0.95)]
            )
            label = {"length": "image file", "tokens": "caption"}.get(what, what)
            yield f"{label}: median {middle:,.0f} {unit}, 90% within {low:,.0f} to {high:,.0f}"
    for reason, count in pool.left_out.items():
        yield f"left out: {count:,} {reason}"
    for name, count in pool.subsets.items():
        yield f"named subset {name}: {count:,} pairs"
    yield from _scores(pool)


def unreadable_lines(pool: Pool) -> Iterator[str]:
    """Yield the shards that could not be read to their end, each with the last readable sample."""
    files = [pool.path / name for name in pool.left_out_files]
    cut = pc.starts_with(pc.field("reason"), NOT_READABLE)
    rows = [row for file in files for row in pq.read_table(file, filters=cut).to_pylist()]
    for row in rows[:_MOST_SHOWN]:
        last = f", after sample {row['key']}" if row["key"] else ""
        yield f"{row['shard']}{last}: {row['reason']}"
    if (more := len(rows) - _MOST_SHOWN) > 0:
        yield f"and {more:,} more, listed in {', '.join(map(str, files))}"


def _scores(pool: Pool) -> Iterator[str]:
    if not pool.scored:
        yield "no quality scores: only quality 'all' can be used; add scores with `data score`"
        return
    yield f"ranked by the score of {pool.ranked_by}; {pool.scored:,} pairs have one:"
    numbers = {
        quality: number
        for quality in ("top20", "top40", "top60", "top80")
        if (number := count_available(pool.count, quality)) <= pool.scored
    }
    best, worst, *borders = nth_values(pool.index, SCORE, [1, pool.scored, *numbers.values()])
    cuts = dict(zip(numbers, borders, strict=True))
    edges = np.histogram_bin_edges(np.array([worst, best]), _BARS)
    counts = np.zeros(_BARS, np.int64)
    for chunk in pool.index.chunks(SCORE):
        counts += np.histogram(chunk[np.isfinite(chunk)], edges)[0]
    bars = np.clip(np.searchsorted(edges, list(cuts.values()), side="right") - 1, 0, _BARS - 1)
    for bar, (count, low, high) in enumerate(zip(counts, edges[:-1], edges[1:], strict=True)):
        begin = ", ".join(quality for quality, place in zip(cuts, bars, strict=True) if place == bar)
        drawn = "#" * round(_BAR_WIDTH * count / counts.max())
        yield f"  {low:8.4f} to {high:8.4f}  {count:>10,}  {drawn}{f'  < {begin} begins' if begin else ''}"
    for quality, cut in cuts.items():
        yield f"  {quality}: {numbers[quality]:,} pairs from {cut:.4f} up"
    if others := [name for name in pool.scores if name != pool.ranked_by]:
        yield f"other scores: {', '.join(others)}"
    if pool.columns:
        yield f"columns for strategies: {', '.join(pool.columns)}"
    for name in (pool.ranked_by, *others):
        scorer = pool.scores[name].scorer
        if scorer.convention:
            costs = scorer_costs(scorer, pool.unranked)
            yield f"score {name} cost {format_flops(score_flops(costs))}"
            yield from (f"  {words}" for words in (*score_words(costs), scorer.convention))


def contact_sheet(pool: Pool, path: Path) -> None:
    """Draw a PNG of ten rows of five pairs: one row per tenth of the pool, best first, or by hash.

    In a pool with scores the text of each pair starts with its score and the smallest of ``top10``, ``top20``
    … that contains the pair.
    """
    shown = _shown(pool)
    rows = shown["row"].to_numpy(np.int64)
    scores = pool.index.rows(rows, [SCORE])[SCORE]
    headings = [
        f"{f'top{10 * tenth + 10}' if tenth + 1 < BINS else 'all'} {score:.4f}\n" if pool.scored else ""
        for tenth, score in zip(shown["tenth"], scores, strict=True)
    ]
    pairs = read_pairs(pool, np.sort(rows), np.searchsorted(np.sort(rows), rows), _TILE)
    down = -(-len(rows) // _ACROSS)
    sheet = Image.new("RGB", (_ACROSS * (_TILE + 8) + 8, down * (_TILE + _TEXT + 8) + 8), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (image, caption, above) in enumerate(
        zip(pairs.images, pairs.rows["caption"], headings, strict=True)
    ):
        x, y = 8 + place % _ACROSS * (_TILE + 8), 8 + place // _ACROSS * (_TILE + _TEXT + 8)
        sheet.paste(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))), (x, y))
        text = "\n".join(wrap(caption, _LINE, max_lines=2, placeholder=" …"))
        draw.multiline_text((x, y + _TILE), above + text, "black", spacing=0, font_size=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        sheet.save(file, "PNG")


def _shown(pool: Pool) -> pd.DataFrame:
    """Return ``tenth`` and ``row`` of the pairs with the lowest hashes of each tenth, by score or hash."""
    shown = pd.DataFrame()
    tenths = bins(pool.index, SCORE) if pool.scored else repeat(None)
    for start, hashes, scored in zip(
        pool.index.starts.tolist(), pool.index.chunks("hash"), tenths, strict=False
    ):
        # Without scores the range of the hashes is divided into ten equal parts.
        tenth = hashes // np.uint64(-(-(2**64) // BINS)) if scored is None else scored
        mine = pd.DataFrame(
            {"tenth": tenth.astype(np.int8), "hash": hashes, "row": start + np.arange(len(hashes))}
        )
        lowest = pd.concat([shown, mine[mine["tenth"] >= 0]]).sort_values(["tenth", "hash", "row"])
        shown = lowest.groupby("tenth").head(_ACROSS)
    return shown
