"""``python -m study data score``: a quality score of a pool's pairs, or a named subset of them."""

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from study.commands.command import add_pool_options, open_console

if TYPE_CHECKING:
    from runners.data.pool.pool import Pool

NAME = "score"
HELP = "give the pairs a quality score, or another"
EXAMPLES: tuple[str, ...] = (
    "pools/web --with ViT-B-32:openai --name clip",
    "pools/icons --with column:popularity --rewrite-shards",
    "pools/web --with subset.npy --name basic",
)


def add_options(parser: ArgumentParser) -> None:
    """Adds its arguments."""
    add_pool_options(parser)
    parser.add_argument(
        "--with",
        dest="scorer",
        required=True,
        metavar="SCORER",
        help="MODEL:PRETRAINED of open_clip (a tag or a checkpoint's file); column:NAME that is known "
        "already; score:NAME that the pool has; or a DataComp uid file .npy, as a named subset",
    )
    parser.add_argument("--name", help="what to call the score or the subset")
    parser.add_argument("--metadata", type=Path, help="parquet to take column:NAME from, by uid or key")
    parser.add_argument("--batch-size", type=int, default=256, help="pairs at a time (256)")
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
    parser.add_argument(
        "--rewrite-shards", action="store_true", help="write the shards in the new order, too"
    )


def run(options: Namespace) -> int:
    """Scores the pool, and prints what it holds then."""
    from runners.data.build.info import info_lines
    from runners.data.build.rescore import column_scores, rewrite_shards, set_score, set_subset, use_score
    from runners.data.pool.pool import Pool, Scorer
    from study.show.pool_progress import PoolProgress

    pool = Pool.open(options.pool)
    kind, _, name = options.scorer.partition(":")
    if options.scorer.endswith(".npy"):
        pool = set_subset(pool, options.name or Path(options.scorer).stem, Path(options.scorer))
    elif kind == "score":
        pool = use_score(pool, name)
    elif kind == "column":
        pool = set_score(pool, column_scores(pool, name, options.metadata), Scorer(name=options.name or name))
    elif name:
        pool = _scored_by_model(pool, kind, name, options)
    else:
        raise ValueError(
            f"--with {options.scorer} is none of MODEL:PRETRAINED, column:NAME, score:NAME, .npy"
        )
    if options.rewrite_shards:
        with PoolProgress(open_console()) as report:
            pool = rewrite_shards(pool, workers=options.workers, report=report)
    for line in info_lines(pool):
        print(line)
    return 0


def _scored_by_model(pool: "Pool", model: str, pretrained: str, options: Namespace) -> "Pool":
    from runners.data.build.clip_score import clip_scorer, clip_scores
    from runners.data.build.rescore import set_score
    from study.show.pool_progress import PoolProgress

    with PoolProgress(open_console()) as report:
        scores = clip_scores(
            pool,
            model,
            pretrained,
            batch_size=options.batch_size,
            device=options.device,
            threads=options.workers,
            done=lambda done, of: report("scoring", done, of, 0),
        )
    pool = set_score(pool, scores, clip_scorer(options.name or options.scorer, model, pool.count))
    shutil.rmtree(pool.path / ".scoring")
    return pool
