"""A backend for tests whose training is made up."""

from collections.abc import Sequence
from typing import Self

from runners.scheduling.backend import Ended, Job
from runners.scheduling.nodes import Amounts


class OneSlot:
    """A backend that runs one job at a time, in this process."""

    binds = True
    name = "one slot"

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def nodes(self) -> dict[str, Amounts]:
        return {"here": {"cpus": 1.0}}

    def start(self, job: Job) -> None:
        self._jobs.append(job)

    def nodes_named(self, name: str) -> set[str]:
        return {name} & self.nodes().keys()

    def ask_to_leave(self, trial: str, *, at_once: bool = False) -> None:
        """Jobs are short."""

    def wait(self, timeout_s: float) -> list[Ended]:  # noqa: ARG002
        jobs, self._jobs = self._jobs, []
        return [self._ended(job) for job in jobs]

    def _ended(self, job: Job) -> Ended:
        try:
            return Ended(trial=job.trial, how="finished", value=job.run())
        except ValueError as error:
            return Ended(trial=job.trial, how="failed", reason=str(error))

    def announce(self, waiting: Sequence[tuple[Amounts, int]]) -> None:
        """Nothing grows."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass
