"""Locks of files."""

import threading
import time
from pathlib import Path

import pytest

from runners.store.files import locked, wait_until_free

pytestmark = pytest.mark.slow


def test_waiting_for_a_lock_ends_at_its_timeout(tmp_path: Path) -> None:
    lock, held, let_go = tmp_path / ".lock", threading.Event(), threading.Event()
    wait_until_free(lock, 600)
    assert not lock.exists()

    def hold() -> None:
        with locked(lock):
            held.set()
            let_go.wait(600)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    began = time.monotonic()
    wait_until_free(lock, 0.3)
    assert time.monotonic() - began >= 0.3
    assert not let_go.is_set()
    threading.Timer(0.3, let_go.set).start()
    wait_until_free(lock, 600)
    assert let_go.is_set()
    assert time.monotonic() - began < 300
    holder.join()
