"""Speed of training data from a bucket, compared with webdataset from the same bucket and with a folder.

Run ``python benchmarks/streaming.py`` from the root of the checkout. It needs moto and s3fs (``.[test]``) and
curl, with which webdataset reads.

A server on loopback adds 30 ms to each request and fails 1 % of them. In turns, each loader decodes the same
JPEGs to 224 pixels in one worker process: webdataset's pipeline, which fetches whole shards; ours from the
bucket with an empty cache; ours from the cache that this left; and ours from a folder. Speeds are pairs per
second of wall-clock time from the first request on, the best of several rounds, because other load on the
machine changes them.

``--mosaic PYTHON`` adds MosaicML's streaming, from the same bucket in its own format, to each round. That is
the interpreter of another environment, with mosaicml-streaming, torchvision and webdataset, because its
dependencies exclude versions that this project's need.

The server counts the requests and bytes of a ``top20`` of a pool that `data build` wrote, whose pairs are
neighbours. Bytes used are those of its images.

`benchmarks/streaming_copies.py` adds the bytes that trials fetch from a scattered pool of ``--scattered``
pairs and from a copy of its subsets, and the speed of a copy whose images were resized.

The last lines are name, value, target, and pass or fail; the exit code is 1 if one fails. Bytes and requests
must not exceed their target; the others must reach it.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import WSGIRequestHandler, run_simple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.loader import BATCH, SIZE, make_shards, pipeline, some_of, speed, tokens
from benchmarks.measured import at_least, at_most, verdict
from benchmarks.streaming_copies import fetches, resized_speed
from budgets.machine_cache import CACHE
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.pool.pool import Pool
from runners.data.reading.training_data import Source
from runners.data.reading.training_set import StreamedSet
from runners.store.location import Location

DELAY_S, FAILING, WORKERS = 0.03, 0.01, 1


def serve(port: int) -> None:
    """Serve S3 with delays and failures; ``/counts`` returns the requests and bytes since its last call."""

    class Quiet(WSGIRequestHandler):
        def log(self, *_words: object) -> None:
            pass

    s3, draw, counts = DomainDispatcherApplication(create_backend_app), random.Random(0), [0, 0]  # noqa: S311

    def slow(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/counts":
            start("200 OK", [])
            answer = json.dumps(counts).encode()
            counts[:] = [0, 0]
            return [answer]
        if environ["REQUEST_METHOD"] != "GET":
            found: Iterable[bytes] = s3(environ, start)
            return found
        time.sleep(DELAY_S)
        counts[0] += 1
        if draw.random() < FAILING:
            start("503 Slow Down", [])
            return []
        content = b"".join(s3(environ, start))
        counts[1] += len(content)
        return [content]

    run_simple("127.0.0.1", port, slow, threaded=True, request_handler=Quiet)


@contextmanager
def served(port: int) -> Iterator[None]:
    """Context manager: the server runs in its own process, and the environment leads to it."""
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "may enter",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with subprocess.Popen([sys.executable, __file__, "--serve", str(port)]) as process:
        try:
            for _ in range(600):
                try:
                    counted(port)
                    break
                except OSError:
                    time.sleep(0.1)
            yield
        finally:
            process.kill()


def counted(port: int) -> tuple[int, int]:
    """Return the requests and bytes since the last call."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/counts") as answer:
        requests, size = json.load(answer)
    return requests, size


def from_webdataset(urls: list[str], pairs: int) -> Iterator[Any]:
    """Return batches of webdataset's pipeline over curl with its retries."""
    shards = [f"pipe:curl -s -f --retry 8 --retry-delay 1 '{url}'" for url in urls]
    batches = pipeline(shards, empty_check=False)
    return some_of(webdataset.WebLoader(batches, batch_size=None, num_workers=WORKERS), pairs)


def upload(files: S3FileSystem, folder: Path) -> None:
    """Upload a folder's files to a bucket with its name."""
    files.mkdir(folder.name)
    for path in sorted(folder.iterdir()):
        Location(f"s3://{folder.name}").put(path, path.name)


def ours(pool: Pool, rows: int) -> Iterator[Any]:
    """Yield one epoch of a pool's first rows."""
    source = Source(pool=pool, rows=np.arange(rows))
    data = StreamedSet(sources=[source], image_size=SIZE, tokens=tokens, workers=WORKERS)
    return data.batches(seed=0, batch_size=BATCH, first_step=0, steps=rows // BATCH)


def from_mosaic(python: str, *words: str | Path) -> str:
    """Run MosaicML's streaming in its own environment and return what it prints."""
    script = Path(__file__).with_name("streaming_mosaic.py")
    # -P: the package has the name of this file.
    environment = os.environ | {"S3_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]}
    return subprocess.run(
        [python, "-P", script, *words], env=environment, check=True, capture_output=True, text=True
    ).stdout


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--scattered", type=int, default=250_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mosaic", metavar="PYTHON", help="compare with MosaicML's streaming as well")
    parser.add_argument("--port", type=int, default=5917)
    parser.add_argument("--serve", type=int, default=0, help="serve on this port, nothing else")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    count, few = options.pairs, options.pairs // 5
    with tempfile.TemporaryDirectory() as name, served(options.port):
        folder, index = Path(name) / "pool", Path(name) / "index"
        make_shards(folder, count)
        files = S3FileSystem()
        upload(files, folder)
        if options.mosaic:
            from_mosaic(options.mosaic, "write", folder, Path(name) / "mosaic")
            upload(files, Path(name) / "mosaic")
        near = build_pool(folder, Build(source=folder, in_place=True), lambda *_: None)
        os.environ[CACHE] = str(Path(name) / "cache")
        away = build_pool(index, Build(source=index, url="s3://pool", in_place=True), lambda *_: None)
        urls = [files.url(f"pool/{shard}") for shard in away.shards]  # signed

        def emptied(number: int) -> Pool:
            os.environ[CACHE] = str(Path(name) / f"cache {number}")
            return Pool.open(index)

        def from_bucket(number: int) -> Iterator[Any]:
            return ours(emptied(number), count)

        counted(options.port)
        seen = sum(len(batch.ids) for batch in ours(emptied(-1), few))
        requests, fetched = counted(options.port)
        used = int(away.frame["length"][:few].sum())
        print(
            f"top20: {seen:,} pairs by {requests} requests, {fetched / 1e6:.1f} MB of {used / 1e6:.1f} used"
        )
        best: dict[str, float] = {}
        for number in range(options.rounds):
            for kind, batches in {
                "webdataset": partial(from_webdataset, urls, count),
                "bucket": partial(from_bucket, number),
                "cache": partial(from_bucket, number),
                "folder": partial(ours, near, count),
            }.items():
                best[kind] = max(best.get(kind, 0.0), speed(batches(), time.perf_counter))
            if options.mosaic:
                found = float(from_mosaic(options.mosaic, "read", "s3://mosaic", str(count), str(SIZE)))
                best["mosaic"] = max(best.get("mosaic", 0.0), found)
        files.mkdir("scattered")
        of_copies = [
            *fetches(Path(name), partial(counted, options.port), options.scattered),
            *resized_speed(Path(name), count // 4),
        ]
    for kind, pairs_per_s in best.items():
        print(f"{kind}: {pairs_per_s:,.0f} pairs/s, best of {options.rounds}")
    results = [
        at_least("streaming_over_webdataset", best["bucket"] / best["webdataset"], 1.0),
        at_least("streaming_over_folder", best["bucket"] / best["folder"], 0.9),
        at_least("streaming_cache_over_folder", best["cache"] / best["folder"], 0.9),
        at_most("streaming_bytes_over_used", fetched / used, 1.1),
        at_most("streaming_requests_per_pair", requests / seen, 0.05),
        *of_copies,
    ]
    if options.mosaic:
        results.append(at_least("streaming_over_mosaic", best["bucket"] / best["mosaic"], 1.0))
    return verdict(results)


if __name__ == "__main__":
    sys.exit(main())
