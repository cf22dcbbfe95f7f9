"""Bookkeeping of a cluster's nodes: total and free resources, and the best fit for a trial."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

Amounts = Mapping[str, float]
"""Name → amount: ``cpus``, ``gpus`` and custom resources of a cluster."""

_ROUNDING = 1e-9
_REFUSALS = 2  # in a row, after which a node counts as faulty


class Nodes:
    """The nodes of a cluster."""

    def __init__(self) -> None:
        self._total: dict[str, Amounts] = {}
        self._free: dict[str, dict[str, float]] = {}
        self._taken: dict[str, tuple[tuple[str, ...], Amounts]] = {}
        self._most: dict[str, float] = {}  # the largest amount of each resource on one node
        self._dead: set[str] = set()
        self._faulty: set[str] = set()
        self._refused = Counter[str]()  # trials that found no usable device there, since one last got on

    def see(self, nodes: Mapping[str, Amounts]) -> None:
        """Replace the known nodes and their total resources."""
        self._dead &= nodes.keys()
        self._faulty &= nodes.keys()
        for node in self._refused.keys() - nodes.keys():
            del self._refused[node]
        if nodes == self._total:
            return
        self._total = {node: dict(has) for node, has in nodes.items()}
        names = sorted({name for has in nodes.values() for name, amount in has.items() if amount})
        self._most = {name: max(has.get(name, 0.0) for has in nodes.values()) for name in names}
        # Recompute free amounts from scratch: nodes may have joined, left, or changed their totals.
        self._free = {node: dict(has) for node, has in nodes.items()}
        for on, resources in self._taken.values():
            self._add(on, resources, -1)

    def leave_out(self, nodes: Collection[str]) -> None:
        """Exclude these nodes until `see` is called without them."""
        self._dead.update(nodes)

    def refused(self, who: str) -> None:
        """Count against its node that ``who`` found no usable device.

        A trial on several nodes counts against none, because any of them may be the one without it.
        """
        nodes = self._taken[who][0]
        if len(nodes) == 1:
            self._refused.update(nodes)

    def got_on(self, who: str) -> None:
        """Record that ``who`` got further or ended well: its nodes are sound."""
        for node in self._taken[who][0]:
            self._refused.pop(node, None)

    def leave_out_faulty(self, needs: Iterable[tuple[Amounts, int]]) -> list[str]:
        """Exclude nodes without usable devices, as if they were dead, and return them.

        A node stays if a need (resources on each of a number of nodes) would fit nowhere without it.
        """
        left_out, needs = [], list(needs)
        for node, times in self._refused.items():
            faulty = times >= _REFUSALS and self._lives(node)
            if faulty and needs and all(self.could_hold(*need, without=node) for need in needs):
                self._faulty.add(node)
                left_out.append(node)
        return left_out

    def readmit_for(self, needs: Iterable[tuple[Amounts, int]]) -> None:
        """Use the nodes again that were left out as faulty, if one of the needs fits nowhere without them."""
        if self._faulty and not all(self.could_hold(*need) for need in needs):
            self._faulty.clear()
            self._refused.clear()

    def best_fit(self, resources: Amounts, count: int) -> tuple[str, ...]:
        """Return the ``count`` nodes with room that have the least free; none if there are fewer."""
        # Amounts are divided by the largest on any node, so that cores and GPUs count alike.
        room = [
            (sum(free[name] / most for name, most in self._most.items() if name in free), node)
            for node, free in self._free.items()
            if self._lives(node) and has_room(free, resources)
        ]
        # Least free first: large gaps stay available for wide trials.
        return tuple(node for _, node in sorted(room)[:count]) if len(room) >= count else ()

    def could_hold(self, resources: Amounts, count: int, *, without: str = "") -> bool:
        """Return whether there is room on the nodes in use, perhaps without one, if nothing else runs."""
        fits = (
            has_room(has, resources)
            for node, has in self._total.items()
            if node != without and node not in self._faulty
        )
        return sum(fits) >= count

    def slots(self, resources: Amounts, count: int) -> int:
        """Count the trials of one kind, each on ``count`` nodes, that fit at once if nothing else runs."""
        rooms = [
            min(
                (int(has.get(name, 0) / amount + _ROUNDING) for name, amount in resources.items() if amount),
                default=0,
            )
            for node, has in self._total.items()
            if self._lives(node)
        ]
        # A node counts once in each trial: k trials need min(its room, k) of every node, k·count in all.
        most = sum(rooms) // count
        while sum(min(room, most) for room in rooms) < most * count:
            most -= 1
        return most

    @property
    def users(self) -> tuple[str, ...]:
        """Names that hold resources, in order of taking."""
        return tuple(self._taken)

    def take(self, who: str, nodes: tuple[str, ...], resources: Amounts) -> None:
        """Take the resources on each of the nodes for ``who``."""
        self._taken[who] = nodes, resources
        self._add(nodes, resources, -1)

    def give_back(self, who: str) -> None:
        """Return everything that ``who`` has taken; does nothing if it has taken nothing."""
        if who in self._taken:
            self._add(*self._taken.pop(who), +1)

    def _lives(self, node: str) -> bool:
        return node not in self._dead and node not in self._faulty

    def _add(self, nodes: tuple[str, ...], resources: Amounts, sign: int) -> None:
        for free in (self._free[node] for node in nodes if node in self._free):
            for name, amount in resources.items():
                free[name] = free.get(name, 0.0) + sign * amount


def has_room(has: Mapping[str, float], needs: Amounts) -> bool:
    """Return whether a node with these resources has room for what is needed."""
    return all(has.get(name, 0.0) >= amount - _ROUNDING for name, amount in needs.items())


def no_room_text(resources: Amounts, count: int, nodes: Iterable[Amounts]) -> str:
    """Describe that a trial, which takes ``resources`` on each of ``count`` nodes, fits on no nodes."""
    no_node = "no node has" if count == 1 else f"there are no {count} nodes that have"
    return f"{no_node} room for a trial of {_amounts_text(resources)}; nodes have: {nodes_text(nodes)}"


def nodes_text(nodes: Iterable[Amounts]) -> str:
    """Describe the resources of nodes; equal nodes are counted."""
    kinds = Counter(map(_amounts_text, nodes))
    return "; ".join(f"{count} × {text}" if count > 1 else text for text, count in kinds.items()) or "none"


def _amounts_text(resources: Amounts) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount)
