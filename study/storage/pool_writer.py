"""Lock of a pool: one command at a time writes it; below a URL, from any machine."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from budgets.hardware.machine_cache import machine_cache
from runners.data.places.copies import copy_name, is_url
from runners.host.storage import Storage
from study.storage.lease import Lease
from study.storage.lock import Holder, only_run

_LEASE = ".writing.json"
_BEAT_S = 3.0


@contextmanager
def only_writer(pool: str, say: Callable[[str], None]) -> Iterator[None]:
    """Context manager that keeps other commands from writing a pool.

    Args:
        pool: The pool's path or URL.
        say: Called with a line about what is waited for.

    Raises:
        ValueError: Another command writes the pool; or, at exit, one has taken over while this one was
            suspended for more than a minute.
        OSError: The storage can't be reached.
    """

    def refusal(writer: Holder) -> ValueError:
        return ValueError(f"another command is writing {pool}: {writer}. Wait until it has ended")

    if not is_url(pool):
        # A new pool has no folder yet; a build locks its own working folder.
        with only_run(Path(pool), refusal) if Path(pool).is_dir() else nullcontext():
            yield
        return
    storage = Storage(pool)
    storage.require()
    here = machine_cache() / "written" / copy_name(pool)
    here.mkdir(parents=True, exist_ok=True)
    with only_run(here, refusal) as (holder, before):
        lease = Lease(storage, _LEASE, holder, refusal)
        lease.claim(before, say)
        over, lost = threading.Event(), list[ValueError]()

        def renew() -> None:
            while not lost and not over.wait(_BEAT_S):
                with suppress(OSError):  # an unreachable storage is tried again in the next round
                    try:
                        lease.renew()
                    except ValueError as error:
                        lost.append(error)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            lease.release()
        if lost:
            raise lost[0]
