"""Record of failures on nodes: which nodes fail out of proportion to their peers; no clock.

A trial that fails is blamed on the nodes that it failed on each time, in equal shares. If its failures have
no node in common, it is blamed on none: then the trial is at fault. A node is cleared by a trial that started
there after the last failure and finished, or has run for twice as long as those that failed.

A node is suspect while it bears a failure or more, and more than twice as many as the median of its peers,
most of which got on: trials ran longer there, or finished. It gets one trial at a time; after two failures it
gets none for ten minutes, and after each further one, for four times as long.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain
from statistics import median_low

from runners.scheduling.instructions import LeaveOut
from runners.scheduling.nodes import Use

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
        suspect: Nodes that fail out of proportion, and their failures, as of the last look.
        resting: Those of them that get no trial.
        probed: Those of them on which a trial runs that started after the last failure: it decides.
    """

    def __init__(self) -> None:
        self._failed_on: dict[str, list[set[str]]] = {}  # trial → its nodes each time, less cleared ones
        self._failures: dict[str, _Failures] = {}
        self._finished_s: dict[str, float] = {}  # node → time at which a trial last finished there
        self._news: list[LeaveOut] = []
        self.suspect: dict[str, float] = {}
        self.resting: set[str] = set()
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

    def finished(self, use: Use, now_s: float) -> None:
        """Record that a trial has finished."""
        for node in use.nodes:
            self._finished_s[node] = now_s
            if node in self._failures and use.since_s >= self._failures[node].last_s:
                self._clear(node)

    def look(self, nodes: Collection[str], running: Collection[Use], now_s: float) -> list[LeaveOut]:
        """Update the attributes; returns nodes that rest anew, and without failures those cleared."""
        for node in self._failures.keys() - nodes:  # it is gone, and another one of that name is sound
            self._failures[node].told = 0
            self._clear(node)
        oldest_s = self._look_at_probes(running, now_s)
        borne = dict.fromkeys(nodes, 0.0)
        for sets in self._failed_on.values():
            common = set.intersection(*sets)
            for node in common & borne.keys():
                borne[node] += len(sets) / len(common)
        self.suspect = {}
        for node, failures in self._failures.items():
            got_on = {
                peer: self._finished_s.get(peer, float("-inf")) >= failures.first_s
                or now_s - oldest_s.get(peer, now_s) >= failures.lived_s
                for peer in borne.keys() - {node}
                if borne[peer] or peer in oldest_s or peer in self._finished_s
            }
            if got_on and 2 * sum(got_on.values()) >= len(got_on):
                typical = median_low(borne[peer] for peer in got_on)
                if borne[node] >= 1 and borne[node] > 2 * typical:
                    self.suspect[node] = borne[node]
        self.probed &= self.suspect.keys()
        self.resting = {
            node
            for node, times in self.suspect.items()
            if times >= 2 and now_s < self._failures[node].rests_until_s  # noqa: PLR2004 - as above
        }
        for node in sorted(self.resting):
            failures, times = self._failures[node], round(self.suspect[node])
            # Not at once: its peers may be about to fail, too.
            if failures.told < failures.rests and now_s - failures.last_s >= _LEAST_S:
                failures.told, wait_s = failures.rests, failures.rests_until_s - now_s
                self._news.append(LeaveOut(node=node, failures=times, wait_s=wait_s))
        news, self._news = self._news, []
        return news

    def _look_at_probes(self, running: Collection[Use], now_s: float) -> dict[str, float]:
        """Clear nodes on which a trial has run long enough; returns node → start of its oldest trial."""
        oldest_s: dict[str, float] = {}
        self.probed = set()
        uses = running if self._failures else ()
        for node, since_s in ((node, use.since_s) for use in uses for node in use.nodes):
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
        for nodes in chain.from_iterable(self._failed_on.values()):
            nodes.discard(node)
