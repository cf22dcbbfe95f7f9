"""Locks of files."""

import threading
import time
from pathlib import Path

import pytest

from runners.store.files import locked

pytestmark = pytest.mark.slow


def test_waiting_for_a_lock_ends_at_its_timeout(tmp_path: Path) -> None:
    lock, held, let_go = tmp_path / ".lock", threading.Event(), threading.Event()

    def hold() -> None:
        with locked(lock):
            held.set()
            let_go.wait(600)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    began = time.monotonic()
    with locked(lock, wait_s=0.3) as got:
        assert got is None
    assert time.monotonic() - began >= 0.3
    assert not let_go.is_set()
    threading.Timer(0.3, let_go.set).start()
    with locked(lock, wait_s=600) as got:
        assert got is not None
    assert let_go.is_set()
    assert time.monotonic() - began < 300
    holder.join()
