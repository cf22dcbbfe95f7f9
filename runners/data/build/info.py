"""Summary of a pool: counts, sizes, score histogram, left-out samples by reason, and a contact sheet."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from budgets.quality import available
from budgets.quantity import format_flops
from runners.data.build.in_place import not_indexed
from runners.data.index.selection import SCORE_PREFIX, bins
from runners.data.pool.damage import NOT_READABLE
from runners.data.pool.pool import Pool
from runners.data.pool.reader import read_pairs

_BARS, _BAR_WIDTH = 12, 40
_TILE, _TEXT, _ACROSS = 96, 24, 5
_MOST_SHOWN = 5
_LINE = 16  # characters per line below a picture


def summarise(path: Path, sheet: Path | None, _item: int) -> list[str]:
    """Return the summary of a pool, and draw its contact sheet where one is wanted; a task of workers."""
    pool = Pool.open(path)
    lines = list(info_lines(pool))
    if sheet is not None:
        contact_sheet(pool, sheet)
        lines.append(str(sheet))
    return lines


def info_lines(pool: Pool) -> Iterator[str]:
    """Yield a summary of a pool, line by line."""
    size = sum(pool.shards.values())
    yield f"pool {pool.name}: {pool.count:,} pairs in {len(pool.shards):,} shards, {size / 1e6:,.1f} MB"
    yield f"fingerprint {pool.fingerprint}"
    if told := not_indexed(pool):
        yield told
    for name, value in pool.origin.provenance.items():
        yield f"{name.replace('_', ' ')}: {value}"
    for what, unit in (("width", "pixels"), ("height", "pixels"), ("length", "bytes"), ("tokens", "tokens")):
        if what in pool.columns:
            low, middle, high = np.percentile(pool.column(what), [5, 50, 95])
            told = {"length": "image file", "tokens": "caption"}.get(what, what)
            yield f"{told}: median {middle:,.0f} {unit}, 90% within {low:,.0f} to {high:,.0f}"
    for reason, count in pool.left_out.items():
        yield f"left out: {count:,} {reason}"
    for name, count in pool.subsets.items():
        yield f"named subset {name}: {count:,} pairs"
    yield from _scores(pool)


def unreadable_lines(pool: Pool) -> Iterator[str]:
    """Yield the shards that could not be read to their end, each with the last readable sample."""
    table = pool.left_out_table()
    cut = table[table["reason"].str.startswith(NOT_READABLE)]
    for shard, key, reason in cut.head(_MOST_SHOWN).itertuples(index=False):
        yield f"{shard}{f', after sample {key}' if key else ''}: {reason}"
    if len(cut) > _MOST_SHOWN:
        yield f"and {len(cut) - _MOST_SHOWN:,} more; {pool.path / pool.left_out_files[-1]} lists all"


def _scores(pool: Pool) -> Iterator[str]:
    if not pool.scored:
        yield "no quality scores: only quality 'all' can be used; add scores with `data score`"
        return
    ranking = pool.origin.scorer
    score = pool.column("score")
    known = score[np.isfinite(score)]
    told = ranking.name if ranking else "an unknown scorer"
    yield f"ranked by the score of {told}; {len(known):,} pairs have one:"
    kept = {
        quality: score[pool.subset(size=None, quality=quality).rows()]
        for quality in ("top20", "top40", "top60", "top80")
        if available(pool.count, quality) <= len(known)
    }
    cuts = {quality: float(scores.min()) for quality, scores in kept.items()}
    counts, edges = np.histogram(known, _BARS)
    bars = np.clip(np.searchsorted(edges, list(cuts.values()), side="right") - 1, 0, _BARS - 1)
    for bar, (count, low, high) in enumerate(zip(counts, edges[:-1], edges[1:], strict=True)):
        begin = ", ".join(quality for quality, its in zip(cuts, bars, strict=True) if its == bar)
        drawn = "#" * round(_BAR_WIDTH * count / counts.max())
        yield f"  {low:8.4f} to {high:8.4f}  {count:>10,}  {drawn}{f'  < {begin} begins' if begin else ''}"
    for quality, cut in cuts.items():
        yield f"  {quality}: {len(kept[quality]):,} pairs from {cut:.4f} up"
    others = {
        name: scorer
        for name, scorer in pool.scorers.items()
        if SCORE_PREFIX + name in pool.columns and name != told
    }
    if others:
        yield f"other scores: {', '.join(others)}"
    for scorer in ([ranking] if ranking else []) + [*others.values()]:
        if scorer.convention:
            trained = f"{format_flops(scorer.train_flops)} of training, " if scorer.train_flops else ""
            yield f"score {scorer.name} took {trained}{format_flops(scorer.scoring_flops)} of scoring"
            yield f"  {scorer.convention}"


def contact_sheet(pool: Pool, path: Path) -> None:
    """Draw a PNG of ten rows of five pairs: one row per tenth of the pool, best first, or by hash."""
    tenths = np.concatenate([*bins(pool.table, "score")])
    order = np.lexsort((pool.column("hash"), tenths))
    rows = np.concatenate([part[:_ACROSS] for part in np.array_split(order, 10) if len(part)])
    pairs = read_pairs(pool, np.sort(rows), np.searchsorted(np.sort(rows), rows), _TILE)
    down = -(-len(rows) // _ACROSS)
    sheet = Image.new("RGB", (_ACROSS * (_TILE + 8) + 8, down * (_TILE + _TEXT + 8) + 8), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (image, caption) in enumerate(zip(pairs.images, pairs.captions, strict=True)):
        x, y = 8 + place % _ACROSS * (_TILE + 8), 8 + place // _ACROSS * (_TILE + _TEXT + 8)
        sheet.paste(_picture(image), (x, y))
        draw.multiline_text(
            (x, y + _TILE),
            f"{caption[:_LINE]}\n{caption[_LINE : 2 * _LINE]}",
            "black",
            spacing=0,
            font_size=10,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG")


def _picture(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
