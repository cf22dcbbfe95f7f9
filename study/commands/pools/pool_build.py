"""``python -m study data build``: build a pool from shards, files, URLs or the embedded generator."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.commands.command import add_pool_options, continuing, number, open_console, show, show_all

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

_OF_EMBEDDED = {"seed": 0}
_OF_TABLES = {"image": "image", "url": "url", "caption": "caption"}
_OF_DOWNLOADS = {
    "img2dataset": "img2dataset", "image_size": 256, "resize_mode": "keep_ratio", "retries": 2, "timeout": 10,
    "user_agent": "clip-scaling-study",
}  # fmt: skip
"""Options that have an effect on one kind of source alone, with their defaults."""

_COLUMNS = {"image": "image paths", "url": "URLs", "caption": "captions", "score": "quality scores"}
_RESIZE_MODES = ("no", "keep_ratio", "keep_ratio_largest", "center_crop", "border")  # of img2dataset
_DOWNLOADS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "img2dataset": ("command that downloads", {"metavar": "COMMAND"}),
    "image_size": ("side of downloaded images in pixels", {"type": number(8, 8192, int)}),
    "resize_mode": ("img2dataset's resize mode", {"choices": _RESIZE_MODES}),
    "retries": ("retries of a failed URL", {"type": number(0, 1000, int)}),
    "timeout": ("seconds to wait for a server", {"type": number(1, 3600, int)}),
    "user_agent": ("user agent sent to servers", {}),
}
"""Option of downloads → its help, and what else defines it."""


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
    for name, default in {**_OF_TABLES, "score": "similarity"}.items():
        parser.add_argument(
            f"--{name}", default=default, help=f"column of {_COLUMNS[name]} (default: {default})"
        )
    parser.add_argument(
        "--without",
        type=Path,
        nargs="+",
        default=[],
        metavar="SET",
        help="evaluation sets whose images are left out",
    )
    parser.add_argument(
        "--seed",
        type=number(0, 2**32 - 1, int),
        default=_OF_EMBEDDED["seed"],
        help="seed of the embedded pool (default: 0)",
    )
    for name, (words, how) in _DOWNLOADS.items():
        option, usual = f"--{name.replace('_', '-')}", _OF_DOWNLOADS[name]
        parser.add_argument(option, default=usual, help=f"{words} (default: {usual})", **how)


def run(options: Namespace) -> int:
    """Build the pool, and print its size and the pairs left out by reason."""
    from runners.data.build.info import unreadable_lines
    from runners.data.pool.pool import Pool
    from runners.store.copies import is_url
    from runners.store.shared_folder import open_shared
    from study.run.pool_site import PoolSite
    from study.storage.lease import only_writer

    source = options.source
    if source is None and not options.in_place:
        raise ValueError(
            "no source given: use --from SOURCE, or --in-place to index the folder's own tar shards"
        )
    embedded = (source or "").startswith("embedded:")
    if embedded and (options.in_place or options.without):
        raise ValueError(
            f"{source} has no shards and holds no evaluation images: leave out --in-place and --without"
        )
    with continuing(options.pool), only_writer(options.pool, show), open_shared(options.pool) as shared:
        if embedded:
            if shared.url:
                raise ValueError(
                    f"{source} can only be built in a folder; upload that folder to {shared.url} afterwards"
                )
            _refuse(options, _OF_TABLES | _OF_DOWNLOADS | {"score": "similarity"}, source)
            _build_embedded(shared.path, source.removeprefix("embedded:"), options.seed)
        else:
            with PoolSite(options, show) as site:
                if is_url(source or options.pool):
                    _build_from_url(shared, (source or options.pool).rstrip("/"), options, site)
                else:
                    _build_from(shared, Path(source or options.pool), options, site)
        pool = Pool.open(shared.path)
        show_all(unreadable_lines(pool))
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in pool.left_out.items()) or "none"
        show(f"{options.pool}: {pool.count:,} pairs; left out: {reasons}")
        if 0 < pool.scored < pool.count:
            show(f"{pool.scored:,} of the pairs have a score")
    return 0


def _refuse(options: Namespace, without_effect: Mapping[str, object], source: object) -> None:
    """Raise ValueError if an option is given that has no effect on a source."""
    for name, default in without_effect.items():
        if getattr(options, name) != default:
            raise ValueError(f"--{name.replace('_', '-')} has no effect on {source}: leave it out")


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


def _build_from_url(shared: "SharedFolder", url: str, options: Namespace, site: "PoolSite") -> None:
    from runners.store.copies import copy_pool, listed

    path = shared.path
    _refuse(options, _OF_TABLES | _OF_DOWNLOADS | _OF_EMBEDDED, url)
    if options.in_place and url != shared.url and "pool.json" in listed("pool", url):
        if shared.url:
            raise ValueError(f"{url} is already an indexed pool; declare or score it without `data build`")
        if (path / "pool.json").exists():
            raise ValueError(f"{options.pool} already exists; remove it or choose another path")
        if options.without:
            raise ValueError(f"{url} is already an indexed pool, whose pairs stay: leave out --without")
        copy_pool(url, path)
        return
    workers = site.workers(written=shared.url or (path if options.in_place else path.parent))
    _build(shared, replace(_described(shared, options, path), url=url, workers=workers))


def _build_from(shared: "SharedFolder", source: Path, options: Namespace, site: "PoolSite") -> None:
    from runners.data.build.download import Download, download
    from runners.data.build.in_place import not_pairs
    from runners.data.build.source import folders_of
    from runners.data.build.table_file import table_columns
    from runners.host.workers import usable_cores

    path, build = shared.path, _described(shared, options, source)
    is_table = source.is_file() and source.suffix.lower() != ".tar"
    is_of_urls = is_table and options.url in table_columns(source)
    without_effect: dict[str, object] = {**_OF_EMBEDDED, **({} if is_table else _OF_TABLES)}
    _refuse(
        options, without_effect | ({"image": _OF_TABLES["image"]} if is_of_urls else _OF_DOWNLOADS), source
    )
    if is_of_urls:
        if options.in_place:
            raise ValueError(
                f"{source} names URLs of images, which have to be downloaded: leave out --in-place"
            )
        if shared.url:
            raise ValueError(
                f"{source} names URLs of images, which are downloaded into a folder beside the pool; build "
                f"the pool in a folder, or download them first and build {shared.url} from their shards"
            )
        shards = path.parent / f".{path.name}.downloaded"
        show(f"downloading into {shards} …")
        how = Download(
            program=options.img2dataset,
            url=options.url,
            caption=options.caption,
            image_size=options.image_size,
            resize_mode=options.resize_mode,
            retries=options.retries,
            timeout_s=options.timeout,
            user_agent=options.user_agent,
            workers=options.workers or usable_cores(),
        )
        origin = {"urls": str(source.resolve())}
        build = replace(build, source=shards, left_out=download(source, shards, how), provenance=origin)
    seen = folders_of(build.source, build.columns) if site.on_cluster else ()
    written = shared.url or (path if options.in_place or path.exists() else path.parent)
    if source.is_dir() and (message := not_pairs(source)):
        show(message)
    _build(shared, replace(build, workers=site.workers(*seen, written=written)))
    if build.source != source:
        show(f"the downloaded shards stay in {build.source}; delete them when they are no longer needed")


def _described(shared: "SharedFolder", options: Namespace, source: Path) -> "Build":
    """Return the build of a source with the command's options."""
    from runners.data.build.build import Build
    from runners.data.build.source import Columns

    return Build(
        source=source,
        to=shared.url,
        columns=Columns(image=options.image, caption=options.caption, score=options.score),
        evaluation=options.without,
        in_place=options.in_place,
    )


def _build(shared: "SharedFolder", build: "Build") -> None:
    from runners.data.build.build_pool import build_pool
    from study.show.view import WorkProgress

    with WorkProgress(open_console()) as report:
        build_pool(shared.path, build, report)
