"""``python -m study data``: build, inspect and score pools, check evaluation sets."""

import argparse
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from runners.data.build.build_pool import Build, build_pool
from runners.data.build.download import RESIZE_MODES, Download, download
from runners.data.build.info import contact_sheet, info_lines, unreadable_lines
from runners.data.build.rescore import column_scores, rewrite_shards, set_score, set_subset, use_score
from runners.data.build.scan import Report
from runners.data.build.source import Columns, table_columns
from runners.data.evaluation.evaluation_suite import check_sets, found_sets
from runners.data.pool.damage import damage_table
from runners.data.pool.pool import Pool, Scorer

_EXIT_UNUSABLE = 1


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds what follows ``data`` on the command line."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pool = argparse.ArgumentParser(add_help=False)
    pool.add_argument("pool", type=Path, help="the pool's folder")
    pool.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (as many as processors)"
    )
    _add_build(commands.add_parser("build", parents=[pool], help="make a pool; the same command goes on"))
    info = commands.add_parser(
        "info", parents=[pool], help="show counts, sizes, scores and what was left out"
    )
    info.add_argument("--sheet", type=Path, metavar="PNG", help="also draw samples of each tenth")
    info.set_defaults(run=_info)
    _add_score(
        commands.add_parser("score", parents=[pool], help="give the pairs a quality score, or another")
    )
    sets = commands.add_parser("eval-sets", help="check evaluation sets; say what the paper's suite lacks")
    sets.add_argument("folder", type=Path, help="a folder of sets in CLIP_benchmark's webdataset layout")
    sets.set_defaults(run=_eval_sets)


def run_data(options: argparse.Namespace, console: Console) -> int:
    """Runs one of the commands; 1 when an evaluation set can't be used.

    Raises:
        ValueError: What was asked for can't be done.
    """
    run: Callable[[argparse.Namespace, Console], int] = options.run
    return run(options, console)


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="source",
        metavar="SOURCE",
        help="a folder of tar shards; a .parquet, .csv, .tsv or .jsonl of image paths or (column url) of "
        "URLs; embedded:PAIRS",
    )
    parser.add_argument("--in-place", action="store_true", help="index the pool's own tars; write no shards")
    parser.add_argument("--image", default="image", help="column of paths (image)")
    parser.add_argument("--url", default="url", help="column of URLs (url)")
    parser.add_argument("--caption", default="caption", help="column of captions (caption)")
    parser.add_argument("--score", default="similarity", help="column of quality scores (similarity)")
    parser.add_argument(
        "--without", type=Path, nargs="+", default=[], metavar="SET", help="evaluation sets to leave out"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the embedded pool (0)")
    parser.add_argument("--img2dataset", default="img2dataset", metavar="COMMAND", help="its command")
    parser.add_argument("--image-size", type=int, default=256, help="side of downloaded images, pixels (256)")
    parser.add_argument("--resize-mode", choices=RESIZE_MODES, default="keep_ratio", help="(keep_ratio)")
    parser.add_argument("--retries", type=int, default=2, help="of a URL that failed (2)")
    parser.add_argument("--timeout", type=int, default=10, help="seconds that a server may take (10)")
    parser.add_argument("--user-agent", default="clip-scaling-study", help="what servers are told")
    parser.set_defaults(run=_build)


def _add_score(parser: argparse.ArgumentParser) -> None:
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
    parser.set_defaults(run=_score)


def _build(options: argparse.Namespace, console: Console) -> int:
    path, source = options.pool, options.source
    if source is None and not options.in_place:
        raise ValueError("what is the pool built from? --from SOURCE, or --in-place for its own tars")
    if source is not None and source.startswith("embedded:"):
        _build_embedded(path, source.removeprefix("embedded:"), options.seed)
    else:
        for line in _build_from(path, Path(source or path), options, console):
            console.print(line, highlight=False, markup=False)
    pool = Pool.open(path)
    for line in unreadable_lines(pool):
        console.print(line, highlight=False, markup=False)
    told = ", ".join(f"{count:,} {reason}" for reason, count in pool.left_out.items()) or "none"
    console.print(f"{path}: {pool.count:,} pairs; left out: {told}", highlight=False, markup=False)
    return 0


def _build_embedded(path: Path, pairs: str, seed: int) -> None:
    if not pairs.isdigit() or pairs == "0":
        raise ValueError(f"embedded:{pairs} needs a number of pairs, as embedded:8192")
    from runners.embedded.scorer import build_scored_pool  # noqa: PLC0415 - torch takes seconds

    build_scored_pool(path, pairs=int(pairs), seed=seed)


def _build_from(path: Path, source: Path, options: argparse.Namespace, console: Console) -> Iterator[str]:
    left_out, provenance = damage_table([]), {}
    shards = source
    if source.is_file() and source.suffix != ".tar" and options.url in table_columns(source):
        shards = path.parent / f".{path.name}.downloaded"
        yield f"downloading into {shards} …"
        how = Download(
            program=options.img2dataset,
            url=options.url,
            caption=options.caption,
            image_size=options.image_size,
            resize_mode=options.resize_mode,
            retries=options.retries,
            timeout_s=options.timeout,
            user_agent=options.user_agent,
            workers=options.workers,
        )
        left_out = download(source, shards, how)
        provenance = {"urls": str(source.resolve())}
    build = Build(
        source=shards,
        columns=Columns(image=options.image, caption=options.caption, score=options.score),
        evaluation=options.without,
        workers=options.workers,
        in_place=options.in_place,
        provenance=provenance,
        left_out=left_out,
    )
    with _bar(console) as report:
        build_pool(path, build, report)
    if shards != source:
        yield f"what was downloaded stays in {shards}; remove it when you need it no more"


def _info(options: argparse.Namespace, console: Console) -> int:
    pool = Pool.open(options.pool)
    for line in info_lines(pool):
        console.print(line, highlight=False, markup=False)
    if options.sheet:
        contact_sheet(pool, options.sheet)
        console.print(f"{options.sheet}", highlight=False, markup=False)
    return 0


def _score(options: argparse.Namespace, console: Console) -> int:
    pool, kind = Pool.open(options.pool), options.scorer.partition(":")
    if options.scorer.endswith(".npy"):
        pool = set_subset(pool, options.name or Path(options.scorer).stem, Path(options.scorer))
    elif kind[0] == "score":
        pool = use_score(pool, kind[2])
    elif kind[0] == "column":
        scores = column_scores(pool, kind[2], options.metadata)
        pool = set_score(pool, scores, Scorer(name=options.name or kind[2]))
    elif kind[2]:
        from runners.data.build.clip_score import clip_scorer, clip_scores  # noqa: PLC0415 - torch takes seconds

        with _bar(console) as report:
            scores = clip_scores(
                pool,
                kind[0],
                kind[2],
                batch_size=options.batch_size,
                device=options.device,
                threads=options.workers,
                done=lambda done, of: report("scoring", done, of, 0),
            )
        pool = set_score(pool, scores, clip_scorer(options.name or options.scorer, kind[0], pool.count))
        shutil.rmtree(pool.path / ".scoring")
    else:
        raise ValueError(
            f"--with {options.scorer} is none of MODEL:PRETRAINED, column:NAME, score:NAME, .npy"
        )
    if options.rewrite_shards:
        with _bar(console) as report:
            pool = rewrite_shards(pool, workers=options.workers, report=report)
    for line in info_lines(pool):
        console.print(line, highlight=False, markup=False)
    return 0


def _eval_sets(options: argparse.Namespace, console: Console) -> int:
    checked = list(check_sets(found_sets(options.folder)))
    for each in checked:
        console.print(each.line, highlight=False, markup=False)
    return 0 if all(each.good for each in checked) else _EXIT_UNUSABLE


class _bar:  # noqa: N801 - used as a function is
    """Shows progress and pairs a second in a terminal; nothing moves in a pipe."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"))
        self._progress = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        self._tasks: dict[str, tuple[TaskID, int]] = {}

    def __enter__(self) -> Report:
        self._progress.start()
        return self._report

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _report(self, what: str, done: int, of: int, pairs: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = (self._progress.add_task(what, total=of, speed=""), 0)
        task, before = self._tasks[what]
        self._tasks[what] = (task, before + pairs)
        took = self._progress.tasks[task].elapsed or 0
        speed = f"{(before + pairs) / took:,.0f} pairs/s" if took and pairs else ""
        self._progress.update(task, completed=done, speed=speed)
