"""``python -m study data build``: build a pool from shards, files, URLs or the embedded generator."""

from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.commands.command import add_pool_options, continuing, number, show, show_all

if TYPE_CHECKING:
    from runners.data.build.build import Build
    from runners.store.shared_folder import SharedFolder
    from study.run.pool_site import PoolSite

NAME = "build"
HELP = "build a pool; the same command continues an interrupted build, and adds later shards"
EXAMPLES: tuple[str, ...] = (
    "pools/icons --from icons.csv",
    "pools/web --from my-shards --without sets/imagenet",
    "my-shards --in-place",
    "pools/theirs --from s3://bucket/shards --in-place",
    "s3://bucket/pool --from s3://bucket/shards",
    "pools/emoji --from embedded:256",
)

_OPTIONS: Mapping[str, tuple[Any, str, dict[str, Any], Collection[str]]] = {
    name: (default, words, how, frozenset(kinds.split()))
    for name, default, words, how, kinds in (
        ("image", "image", "column of image paths", {}, "table"),
        ("url", "url", "column of URLs", {}, "table urls"),
        ("caption", "caption", "column of captions", {}, "table urls"),
        ("score", "similarity", "column of quality scores", {}, "table urls tars"),
        ("seed", 0, "seed of the embedded pool", {"type": number(0, 2**32 - 1, int)}, "embedded"),
        ("img2dataset", "img2dataset", "command that downloads", {"metavar": "COMMAND"}, "urls"),
        ("image_size", 256, "side of downloaded images in pixels", {"type": number(8, 8192, int)}, "urls"),
        ("retries", 2, "retries of a failed URL", {"type": number(0, 1000, int)}, "urls"),
        ("timeout", 10, "seconds to wait for a server", {"type": number(1, 3600, int)}, "urls"),
        ("user_agent", "clip-scaling-study", "user agent sent to servers", {}, "urls"),
    )
}
"""Option → its default, its help, what else defines it, and the kinds of sources that it has an effect on."""


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_pool_options(parser)
    parser.add_argument(
        "--from",
        dest="source",
        metavar="SOURCE",
        help="a folder of tar shards; a .parquet, .csv, .tsv or .jsonl table of image paths, or of URLs if "
        "it has a url column; embedded:PAIRS; or the URL of a folder of tar shards",
    )
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="index the tar shards where they are, in the folder itself or below the URL; write no shards",
    )
    parser.add_argument(
        "--without",
        type=Path,
        nargs="+",
        default=[],
        metavar="SET",
        help="evaluation sets whose images are left out",
    )
    for name, (default, words, how, _) in _OPTIONS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, default=default, help=f"{words} (default: {default})", **how)


def run(options: Namespace) -> int:
    """Build the pool, and print its size and the pairs left out by reason."""
    from runners.data.build.info import unreadable_lines
    from runners.data.pool.pool import Pool
    from runners.store.shared_folder import open_shared
    from study.run.pool_site import PoolSite
    from study.storage.lock import only_writer

    source = options.source or (options.pool if options.in_place else None)
    if source is None:
        raise ValueError(
            "no source given: use --from SOURCE, or --in-place to index the folder's own tar shards"
        )
    with continuing(options.pool), only_writer(options.pool, show), open_shared(options.pool) as shared:
        kind = _kind_of(source, options)
        _check(source, kind, options, shared.url)
        if kind == "embedded":
            _build_embedded(shared.path, source.removeprefix("embedded:"), options.seed)
        else:
            with PoolSite(options.address, options.workers, show) as site:
                _build(shared, source, kind, options, site)
        pool = Pool.open(shared.path)
        show_all(unreadable_lines(pool))
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in pool.left_out.items()) or "none"
        show(f"{options.pool}: {pool.count:,} pairs; left out: {reasons}")
        if 0 < pool.scored < pool.count:
            show(f"{pool.scored:,} of the pairs have a score")
    return 0


def _kind_of(source: str, options: Namespace) -> str:
    """Return the kind of a source: ``embedded``, ``tars``, a ``table`` of images, or one of ``urls``."""
    from runners.data.build.source import shards_at
    from runners.data.build.table_file import columns_and_rows

    path = Path(source)
    if source.startswith("embedded:"):
        return "embedded"
    if not path.is_file() or shards_at([path.name], packed=True):
        return "tars"
    return "urls" if options.url in columns_and_rows(path)[0] else "table"


def _check(source: str, kind: str, options: Namespace, url: str) -> None:
    """Raise ValueError for options that have no effect, and pools that can't be built from the source."""
    fitting = [(name, default, kinds) for name, (default, *_, kinds) in _OPTIONS.items()]
    fitting += [("in_place", False, {"tars", "table"}), ("without", [], {"tars", "table", "urls"})]
    for name, default, kinds in fitting:
        if kind not in kinds and getattr(options, name) != default:
            raise ValueError(f"--{name.replace('_', '-')} has no effect on {source}: leave it out")
    if url and kind in {"embedded", "urls"}:
        raise ValueError(f"{source} can only be built in a folder; upload that folder to {url} afterwards")


def _build_embedded(path: Path, pairs: str, seed: int) -> None:
    from budgets.declaration import values

    try:
        count = values.positive(pairs)
    except ValueError as error:
        raise ValueError(
            f"embedded:{pairs} needs a number of pairs, such as embedded:8192: {error}"
        ) from None
    from runners.embedded.scorer import build_scored_pool

    build_scored_pool(path, pairs=count, seed=seed)


def _build(shared: "SharedFolder", source: str, kind: str, options: Namespace, site: "PoolSite") -> None:
    from runners.data.build.build import Build
    from runners.data.build.build_pool import build_pool
    from runners.data.build.source import Columns, folders_of, not_pairs
    from runners.store.location import Location
    from study.show.view import WorkProgress

    path, there = shared.path, Location(source)
    url = "" if there.local is not None else there.address
    build = Build(
        source=path if url else Path(source),
        to=shared.url,
        columns=Columns(image=options.image, caption=options.caption, score=options.score),
        evaluation=options.without,
        in_place=options.in_place,
        url=url,
    )
    if kind == "urls":
        build = _downloaded(path, build, options)
    elif build.source.is_dir() and not url and (message := not_pairs(build.source)):
        show(message)
    seen = folders_of(build.source, build.columns) if site.on_cluster and not url else ()
    written = shared.url or (path if options.in_place or path.exists() else path.parent)
    with WorkProgress() as report:
        build_pool(path, replace(build, workers=site.workers(*seen, written=written)), report)
    if kind == "urls":
        show(f"the downloaded shards stay in {build.source}; delete them when they are no longer needed")


def _downloaded(path: Path, build: "Build", options: Namespace) -> "Build":
    """Download the images of a table of URLs, and return the build of a pool from their shards."""
    from runners.data.build.download import download
    from runners.host.workers import usable_cores

    table, shards = build.source, path.parent / f".{path.name}.downloaded"
    show(f"downloading into {shards} …")
    how = {
        "url_col": options.url,
        "caption_col": options.caption,
        "image_size": options.image_size,
        "retries": options.retries,
        "timeout": options.timeout,
        "user_agent_token": options.user_agent,
        "processes_count": options.workers or usable_cores(),
    }
    left_out = download(table, shards, options.img2dataset, how)
    return replace(build, source=shards, left_out=left_out, provenance={"urls": str(table.resolve())})
