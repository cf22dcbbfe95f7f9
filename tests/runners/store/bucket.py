"""A real S3 server on loopback with a bucket; it can be stopped and restarted with its content."""

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pytest


class Bucket:
    """The server; the environment holds its address and credentials.

    A test is skipped where the packages of the server or of its client are not installed.

    Args:
        environment: Environment variables with the address and credentials.
        name: Name of the bucket.

    Attributes:
        url: A folder in the bucket.
        lag_s: Seconds until a list of the bucket has what was written.
        slow: Seconds that answers take, by the last part of what is asked for.
    """

    lag_s = 0.0
    slow: Mapping[str, float] = MappingProxyType({})

    def __init__(self, environment: pytest.MonkeyPatch, name: str = "") -> None:
        self._port = 0
        self.come_back()
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self._port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "anybody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "may enter")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = pytest.importorskip("s3fs").S3FileSystem
        client.clear_instance_cache()  # of another server
        name = name or f"bucket-{secrets.token_hex(4)}"
        client().mkdir(name)
        self.url = f"s3://{name}/clip"

    def come_back(self) -> None:
        moto = pytest.importorskip("moto.moto_server.werkzeug_app")
        quiet = type("Quiet", (moto.MotoRequestHandler,), {"log": lambda *_words: None})
        # S3 alone: moto's own server lists the folders of all its services at each request.
        app = moto.create_backend_app("s3")

        def lagging(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            if wait_s := self.slow.get(environ["PATH_INFO"].rpartition("/")[2], 0.0):
                time.sleep(wait_s)
            if not self.lag_s or "list-type" not in environ["QUERY_STRING"]:
                found: Iterable[bytes] = app(environ, start)
                return found
            headers: list[Any] = []
            listed = b"".join(app(environ, lambda *words: headers.extend(words))).decode()
            answer = re.sub(r"<Contents>.*?</Contents>", self._if_old, listed, flags=re.DOTALL).encode()
            start(headers[0], [each for each in headers[1] if each[0].lower() != "content-length"])
            return [answer]

        serving = pytest.importorskip("werkzeug.serving")
        self._server = serving.make_server(
            "127.0.0.1", self._port, lagging, threaded=True, request_handler=quiet
        )
        self._port = self._server.port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _if_old(self, listed: re.Match[str]) -> str:
        written = re.search("<LastModified>(.*?)</LastModified>", listed[0])
        assert written is not None
        old = time.time() - datetime.fromisoformat(written[1]).timestamp() > self.lag_s
        return listed[0] if old else ""

    def go_away(self) -> None:
        self._server.shutdown()
        self._thread.join()
