"""Real downloads by img2dataset from a server with good, slow, broken and forbidden images."""

import os
import shlex
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from runners.data.pool.pool import Pool
from study.cli import main
from tests.runners.data.images import read_images
from tests.study.commands.pools import conftest

pytestmark = pytest.mark.slow

PROGRAM = os.environ.get("IMG2DATASET") or shutil.which("img2dataset")


def command(part: str) -> str:
    return f"{conftest.command(part)} --retries 1 --timeout 2 --img2dataset {PROGRAM}"


class Server(ThreadingHTTPServer):
    """HTTP server that records its requests."""

    asked: list[tuple[str, str]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["User-Agent"]))
        kind, _, number = self.path[1:].partition("/")
        if kind == "slow":
            time.sleep(3)
        if kind == "missing" or (kind == "flaky" and sum(p == self.path for p, _ in self.server.asked) == 1):
            self.send_error(404 if kind == "missing" else 503)
            return
        self.send_response(200)
        if kind == "forbidden":
            self.send_header("X-Robots-Tag", "noai")
        self.end_headers()
        file = BytesIO()
        Image.new("RGB", (160, 120), (int(number) * 20, 90, 30)).save(file, "PNG")
        self.wfile.write(b"<html>no image</html>" if kind == "broken" else file.getvalue())

    def log_message(self, *_words: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.skipif(PROGRAM is None, reason="img2dataset is not installed; IMG2DATASET can name its command")
def test_a_table_of_urls_becomes_a_pool_and_failed_downloads_are_counted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [f"good/{n}" for n in range(6)] + ["flaky/7", "slow/8", "broken/9", "missing/1", "forbidden/2"]
    host = f"http://127.0.0.1:{server.server_port}"
    table = pd.DataFrame({"url": [f"{host}/{path}" for path in paths], "caption": [f"a {p}" for p in paths]})
    table.assign(similarity=np.arange(11) / 10).to_parquet("urls.parquet")

    assert main(shlex.split(command("urls.parquet"))) == 0

    said = capsys.readouterr().out
    pool = Pool.open("pools/downloaded")
    assert sorted(pool.frame["caption"]) == ["a flaky/7", *(f"a good/{n}" for n in range(6))]
    assert pool.scored
    assert pool.frame["score"].max() == pytest.approx(0.6)
    assert {(row.width, row.height) for row in pool.frame.itertuples()} == {(85, 64)}
    assert read_images(pool, np.arange(7), 64).shape == (7, 3, 64, 64)
    reasons = pd.read_parquet("pools/downloaded/left-out.parquet").set_index("shard")["reason"]
    assert "timed out" in reasons[f"{host}/slow/8"]
    assert "404" in reasons[f"{host}/missing/1"]
    assert "X-Robots-Tag" in reasons[f"{host}/forbidden/2"]
    assert reasons[f"{host}/broken/9"].startswith("failed to resize")
    assert "7 pairs; left out: " in said
    assert all("my-project" in agent for _, agent in server.asked)

    asked = len(server.asked)
    shutil.rmtree("pools/downloaded")
    assert main(shlex.split(command("urls.parquet"))) == 0
    assert len(server.asked) == asked  # what was downloaded is not downloaded again


def test_a_folder_of_another_download_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "img2dataset"
    program.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    program.chmod(0o755)
    pd.DataFrame({"url": ["http://a"], "caption": ["a"]}).to_parquet("urls.parquet")
    words = ["data", "build", "pool", "--from", "urls.parquet", "--img2dataset", str(program)]
    for more in (["--image-size", "32"], [], []):  # nothing is downloaded yet, so options may change
        assert main([*words, *more]) == 2
        assert "img2dataset failed: no network" in capsys.readouterr().err

    (tmp_path / ".pool.downloaded" / "00000.tar").touch()  # a finished shard
    assert main([*words, "--image-size", "64"]) == 2
    assert (
        "were downloaded with another --image-size (256, now 64); delete the folder"
        in capsys.readouterr().err
    )

    pd.DataFrame({"url": ["http://b"], "caption": ["b"]}).to_parquet("urls.parquet")
    assert main(words) == 2
    assert ".pool.downloaded holds shards that were downloaded with another content of the table" in (
        capsys.readouterr().err
    )
