"""Bookkeeping of a cluster's nodes: total and free resources, and the best fit for a trial."""

from collections.abc import Collection, Mapping

Amounts = Mapping[str, float]
"""Name → amount: ``cpus``, ``gpus`` and custom resources of a cluster."""

_ROUNDING = 1e-9


class Nodes:
    """The nodes of a cluster."""

    def __init__(self) -> None:
        self._total: dict[str, Amounts] = {}
        self._free: dict[str, dict[str, float]] = {}
        self._taken: dict[str, tuple[tuple[str, ...], Amounts]] = {}
        self._most: dict[str, float] = {}  # the largest amount of each resource on one node
        self._dead: set[str] = set()

    def see(self, nodes: Mapping[str, Amounts]) -> None:
        """Replace the known nodes and their total resources."""
        self._dead &= nodes.keys()
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

    def best_fit(self, resources: Amounts, count: int) -> tuple[str, ...]:
        """Find the nodes with the least free resources, each with room for all of ``resources``.

        Returns:
            ``count`` nodes, or none if there is no room.
        """
        # Amounts are divided by the largest on any node, so that cores and GPUs count alike.
        room = [
            (sum(free[name] / most for name, most in self._most.items() if name in free), node)
            for node, free in self._free.items()
            if node not in self._dead and _holds(free, resources)
        ]
        # Least free first: large gaps stay available for wide trials.
        return tuple(node for _, node in sorted(room)[:count]) if len(room) >= count else ()

    def could_hold(self, resources: Amounts, count: int) -> bool:
        """Return whether there is room if nothing else runs."""
        return sum(_holds(has, resources) for has in self._total.values()) >= count

    def slots(self, resources: Amounts, count: int) -> int:
        """Count the trials of one kind, each on ``count`` nodes, that fit at once if nothing else runs."""
        each = [
            min(
                (int(has.get(name, 0) / amount + _ROUNDING) for name, amount in resources.items() if amount),
                default=0,
            )
            for node, has in self._total.items()
            if node not in self._dead
        ]
        # A node counts once in each trial: k trials need min(its room, k) of every node, k·count in all.
        most = sum(each) // count
        while sum(min(room, most) for room in each) < most * count:
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

    def _add(self, nodes: tuple[str, ...], resources: Amounts, sign: int) -> None:
        for free in (self._free[node] for node in nodes if node in self._free):
            for name, amount in resources.items():
                free[name] = free.get(name, 0.0) + sign * amount


def _holds(has: Mapping[str, float], needs: Amounts) -> bool:
    return all(has.get(name, 0.0) >= amount - _ROUNDING for name, amount in needs.items())
