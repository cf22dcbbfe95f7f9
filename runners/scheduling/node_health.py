"""Record of failures on nodes: which nodes fail trials that are sound, and which trials fail on sound nodes.

A failure counts at the node where it happened, shared by the nodes of its trial. A node is cleared of earlier
failures by a trial that started after the last of them and finished, or has run for twice as long as those
that failed. A trial is at fault once all nodes of one of its failures are cleared, because others made
progress where it did not: then its failures count at no node. A trial that finishes after all was sound, and
its failures stay with the nodes.

A node is suspect while it bears a failure or more, and a peer with less has made progress since: trials ran
longer there, or finished. It gets one trial at a time; after two failures it gets none for ten minutes, and
after each further one, for four times as long. A trial that has failed before starts on no suspect node, nor
on one that failed more sound trials than is typical, if others could hold it: trials that have not failed yet
try those. So two bad nodes do not pass a trial to each other until it is given up.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from statistics import median_low

from runners.scheduling.instructions import LeaveOut
from runners.scheduling.nodes import Use

_ONE, _TO_REST = 1 - 1e-9, 2 - 1e-9  # failures, summed from the shares of wide trials
_REST_S, _LONGER, _LONGEST_REST_S = 600.0, 4, 4 * 3600.0
_LEAST_S, _MOST_S = 60.0, 600.0  # bounds of the time after which a running trial clears its node


@dataclass(kw_only=True, slots=True)
class _Failures:
    """The failures on a node since it was last cleared."""

    first_s: float
    last_s: float = 0.0
    lived_s: float = 0.0  # longest run of a trial that failed
    rests: int = 0
    told: int = 0  # rests
    rests_until_s: float = float("-inf")


class NodeHealth:
    """The nodes on which trials failed.

    Attributes:
        suspect: Nodes with failures while peers make progress, and how many, as of the last look.
        doubtful: Those, and nodes on which more sound trials failed than is typical.
        apart: One node of each set of nodes on which a trial failed, while no trial makes progress anywhere:
            wide trials on other sets show which one is bad.
        resting: Suspect nodes that get no trial.
        probed: Suspect nodes on which a trial runs that started after the last failure: it decides.
    """

    def __init__(self) -> None:
        self._failed_on: dict[str, list[set[str]]] = {}  # trial → its nodes each time, less cleared ones
        self._failures: dict[str, _Failures] = {}
        self._finished_s: dict[str, float] = {}  # node → time at which a trial last finished there
        self._convicted = Counter[str]()  # node → sound trials that failed there
        self._news: list[LeaveOut] = []
        self.suspect: dict[str, float] = {}
        self.resting: set[str] = set()
        self.apart: set[str] = set()
        self.doubtful: set[str] = set()
        self.probed: set[str] = set()

    def failed(self, trial: str, use: Use, now_s: float) -> None:
        """Record that a trial has crashed or failed."""
        self._failed_on.setdefault(trial, []).append(set(use.nodes))
        for node in use.nodes:
            failures = self._failures.setdefault(node, _Failures(first_s=now_s))
            failures.last_s, failures.lived_s = now_s, max(failures.lived_s, now_s - use.since_s)
            if now_s >= failures.rests_until_s:
                rest_s = min(_REST_S * _LONGER**failures.rests, _LONGEST_REST_S)
                failures.rests, failures.rests_until_s = failures.rests + 1, now_s + rest_s

    def finished(
        self, trial: str, use: Use, now_s: float, failed_on: Collection[frozenset[str]] = ()
    ) -> None:
        """Record that a trial has finished, after it had failed on some nodes: it is sound, then."""
        if trial in self._failed_on:
            self._failed_on[trial] = [nodes for nodes in self._failed_on[trial] if nodes]
        self._convicted.update(node for nodes in failed_on if len(nodes) == 1 for node in nodes)
        for node in use.nodes:
            self._finished_s[node] = now_s
            if node in self._failures and use.since_s >= self._failures[node].last_s:
                self._clear(node)

    def look(self, nodes: Collection[str], running: Iterable[Use], now_s: float) -> list[LeaveOut]:
        """Update the attributes; returns nodes that rest again, and without failures those cleared."""
        for node in self._failures.keys() - nodes:  # it is gone, and another one of that name is sound
            self._failures[node].told = 0
            self._clear(node)
        self.suspect, self.probed, self.apart, self.resting = {}, set(), set(), set()
        if self._failures:
            self._weigh(nodes, self._look_at_probes(running, now_s), now_s)
        self.doubtful = {*self.suspect}
        if self._convicted and nodes:
            typical = median_low(self._convicted[node] for node in nodes)
            self.doubtful.update(node for node in nodes if self._convicted[node] > typical)
        news, self._news = self._news, []
        return news

    def _weigh(self, nodes: Collection[str], oldest_s: Mapping[str, float], now_s: float) -> None:
        """Find the nodes that are suspect, rest, or are apart, by the start of each one's oldest trial."""
        borne = dict.fromkeys(nodes, 0.0)
        counted = [failed for sets in self._failed_on.values() if all(sets) for failed in sets]
        for failed in counted:
            for node in failed & borne.keys():
                borne[node] += 1 / len(failed)
        finished_s = dict.fromkeys(nodes, float("-inf")) | self._finished_s
        self.suspect = {
            node: borne[node]
            for node, failures in self._failures.items()
            if borne[node] >= _ONE
            and any(
                borne[peer] < _ONE
                and (
                    finished_s[peer] >= failures.first_s
                    or (peer in oldest_s and now_s - oldest_s[peer] >= failures.lived_s)
                )
                for peer in borne
            )
        }
        self.probed &= self.suspect.keys()
        lived_s = max((failures.lived_s for failures in self._failures.values()), default=0.0)
        progress = self._finished_s or any(now_s - since_s >= lived_s for since_s in oldest_s.values())
        for failed in () if progress else counted:
            if len(failed) > 1 and not failed & self.apart:
                self.apart.add(max(failed, key=lambda node: (borne.get(node, 0.0), node)))
        self.resting = {
            node
            for node, times in self.suspect.items()
            if times >= _TO_REST and now_s < self._failures[node].rests_until_s
        }
        for node in sorted(self.resting):
            failures, times = self._failures[node], round(self.suspect[node])
            # Not at once: its peers may be about to fail, too.
            if failures.told < failures.rests and now_s - failures.last_s >= _LEAST_S:
                failures.told, wait_s = failures.rests, failures.rests_until_s - now_s
                self._news.append(LeaveOut(node=node, failures=times, wait_s=wait_s))

    def _look_at_probes(self, running: Iterable[Use], now_s: float) -> dict[str, float]:
        """Clear nodes on which a trial has run long enough; returns node → start of its oldest trial."""
        oldest_s: dict[str, float] = {}
        for node, since_s in ((node, use.since_s) for use in running for node in use.nodes):
            oldest_s[node] = min(since_s, oldest_s.get(node, since_s))
            failures = self._failures.get(node)
            if failures is not None and since_s >= failures.last_s:
                self.probed.add(node)
                if now_s - since_s >= min(max(2 * failures.lived_s, _LEAST_S), _MOST_S):
                    self._clear(node)
        return oldest_s

    def _clear(self, node: str) -> None:
        if self._failures.pop(node).told:
            self._news.append(LeaveOut(node=node, failures=0, wait_s=0))
        for sets in self._failed_on.values():
            for nodes in sets:
                nodes.discard(node)
