"""What the nodes of a cluster have and what of it is taken: pure bookkeeping, and where a trial fits best."""

from collections.abc import Collection, Mapping

Amounts = Mapping[str, float]
"""Name → amount: ``cpus``, ``gpus`` and whatever a cluster calls its own."""

_ROUNDING = 1e-9


class Nodes:
    """The nodes of a cluster."""

    def __init__(self) -> None:
        self._total: dict[str, Amounts] = {}
        self._free: dict[str, dict[str, float]] = {}
        self._taken: dict[str, tuple[tuple[str, ...], Amounts]] = {}
        self._most: dict[str, float] = {}  # the most of each resource that one node has
        self._dead: set[str] = set()

    def see(self, nodes: Mapping[str, Amounts]) -> None:
        """The cluster has these nodes now, with so much in all on each."""
        self._dead &= nodes.keys()
        if nodes == self._total:
            return
        self._total = {node: dict(has) for node, has in nodes.items()}
        names = sorted({name for has in nodes.values() for name, amount in has.items() if amount})
        self._most = {name: max(has.get(name, 0.0) for has in nodes.values()) for name in names}
        self._free = {node: dict(has) for node, has in nodes.items()}
        for on, resources in self._taken.values():
            self._add(on, resources, -1)

    def leave_out(self, nodes: Collection[str]) -> None:
        """Nothing is put on these nodes until `see` has been told of nodes without them."""
        self._dead.update(nodes)

    def best_fit(self, resources: Amounts, count: int) -> tuple[str, ...]:
        """Find the nodes on which the least is left free, each for all of the resources.

        Returns:
            So many nodes, or none where there is no room.
        """
        room = [
            (sum(free[name] / most for name, most in self._most.items() if name in free), node)
            for node, free in self._free.items()
            if node not in self._dead and _holds(free, resources)
        ]
        return tuple(node for _, node in sorted(room)[:count]) if len(room) >= count else ()

    def could_hold(self, resources: Amounts, count: int) -> bool:
        """Return whether there would be room if nothing else ran."""
        return sum(_holds(has, resources) for has in self._total.values()) >= count

    def slots(self, resources: Amounts, count: int) -> int:
        """Count how many trials of one kind, each on so many nodes, run at once where nothing else does."""
        each = [
            min(
                (int(has.get(name, 0) / amount + _ROUNDING) for name, amount in resources.items() if amount),
                default=0,
            )
            for node, has in self._total.items()
            if node not in self._dead
        ]
        return sum(each) // count

    @property
    def users(self) -> tuple[str, ...]:
        """Who has taken something, in order."""
        return tuple(self._taken)

    def take(self, who: str, nodes: tuple[str, ...], resources: Amounts) -> None:
        """Somebody takes the resources on each of the nodes."""
        self._taken[who] = nodes, resources
        self._add(nodes, resources, -1)

    def give_back(self, who: str) -> None:
        """Somebody gives back what it took; nothing where it took nothing."""
        if who in self._taken:
            self._add(*self._taken.pop(who), +1)

    def _add(self, nodes: tuple[str, ...], resources: Amounts, sign: int) -> None:
        for free in (self._free[node] for node in nodes if node in self._free):
            for name, amount in resources.items():
                free[name] = free.get(name, 0.0) + sign * amount


def _holds(has: Mapping[str, float], needs: Amounts) -> bool:
    return all(has.get(name, 0.0) >= amount - _ROUNDING for name, amount in needs.items())
