"""Lock of a pool: one command at a time writes it; below a URL, from any machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from budgets.hardware.machine_cache import machine_cache
from runners.data.places.copies import copy_name, is_url
from runners.host.storage import Storage
from study.storage.lease import Lease
from study.storage.lock import Holder, only_run

_LEASE = ".writing.json"


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
        try:
            with lease.kept():
                yield
        finally:
            lease.release()
        if lease.lost is not None:
            raise lease.lost
