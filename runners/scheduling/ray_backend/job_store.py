"""Calls of jobs on their way from the driver of a tuning to its trials; this actor does not load Tune."""


class JobStore:
    """Calls of jobs, which are too large for Tune's own records, and requests to leave.

    An actor on the driver's node. A file on shared storage would be too slow: NFS clients may cache its
    absence for up to a minute, and by then a spot machine may be gone.
    """

    def __init__(self) -> None:
        self._runs: dict[str, bytes] = {}
        self._asked: set[str] = set()

    def put(self, trial: str, run: bytes) -> None:
        """Keep the call of a trial, which may start again after a request to leave."""
        self._runs[trial] = run
        self._asked.discard(trial)

    def take(self, trial: str) -> bytes:
        """Return the call of a trial and forget it."""
        return self._runs.pop(trial)

    def ask(self, trial: str) -> None:
        """Ask a trial to leave."""
        self._asked.add(trial)

    def asked(self, trial: str) -> bool:
        """Return whether a trial is asked to leave."""
        return trial in self._asked
