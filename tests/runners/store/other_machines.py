"""Workers that share no files with their driver."""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from budgets.machine_cache import CACHE
from runners.host.workers import Name, part_name

T = TypeVar("T")


class OtherMachines:
    """Workers on machines of their own: while they work, the driver's files are away.

    Args:
        driver: The driver's files.
        own: Those of the machines.
        fails_at: A call at which the last machine dies.
    """

    def __init__(self, driver: Path, own: Path, fails_at: int = 0) -> None:
        self.driver, self.own, self.fails_at, self.calls = driver, own, fails_at, list[int]()

    def map(
        self, task: Callable[[int], T], items: Sequence[int], name: Name = part_name
    ) -> Iterator[tuple[int, T]]:
        """Call a task for each item; see `runners.host.workers.Workers`."""
        pickled = pickle.dumps(task)
        for item in items:
            self.calls.append(item)
            if len(self.calls) == self.fails_at:
                raise KeyboardInterrupt(name(item))
            away = self.driver.rename(self.driver.with_name("away"))
            os.environ[CACHE] = str(self.own)
            try:
                result = pickle.loads(pickled)(item)  # noqa: S301 - our own
            finally:
                os.environ[CACHE] = str(self.driver)
                assert not self.driver.exists(), "a worker wrote to the driver's folder"
                away.rename(self.driver)
            yield item, result
