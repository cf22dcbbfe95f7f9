"""A real S3 server on loopback with a bucket; it can be stopped and restarted with its content."""

import logging
import secrets

import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem


class Bucket:
    """The server; the environment holds its address and credentials.

    Args:
        environment: What sets the address and credentials.
        name: Name of the bucket.

    Attributes:
        url: A folder in the bucket.
    """

    def __init__(self, environment: pytest.MonkeyPatch, name: str = "") -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._port = 0
        self.come_back()
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self._port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "anybody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "may enter")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        S3FileSystem.clear_instance_cache()  # of another server
        name = name or f"bucket-{secrets.token_hex(4)}"
        S3FileSystem().mkdir(name)
        self.url = f"s3://{name}/clip"

    def come_back(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()

    def go_away(self) -> None:
        self._server.stop()
