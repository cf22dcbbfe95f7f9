"""Bookkeeping of a cluster's nodes: total and free resources, and the best fit for a trial."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

Amounts = Mapping[str, float]
"""Name → amount: ``cpus``, ``gpus`` and custom resources of a cluster."""

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """What someone takes of each of some nodes, from a time to a predicted one."""

    nodes: tuple[str, ...]
    resources: Amounts
    since_s: float
    until_s: float


def cores_per_gpu(nodes: Iterable[Amounts]) -> int | None:
    """Return the fewest cores that a node has for each of its GPUs; None if no node has GPUs."""
    shares = [int(has.get("cpus", 1) // has["gpus"]) for has in nodes if has.get("gpus")]
    return max(1, min(shares)) if shares else None


class Nodes:
    """The nodes of a cluster.

    Attributes:
        total: Node → all of its resources.
        uses: What each user takes, in order of taking.
    """

    def __init__(self) -> None:
        self.total: dict[str, Amounts] = {}
        self._free: dict[str, dict[str, float]] = {}
        self.uses: dict[str, Use] = {}
        self._most: dict[str, float] = {}  # the largest amount of each resource on one node
        self._dead: set[str] = set()

    def see(self, nodes: Mapping[str, Amounts]) -> None:
        """Replace the known nodes and their total resources."""
        self._dead &= nodes.keys()
        if nodes == self.total:
            return
        self.total = {node: dict(has) for node, has in nodes.items()}
        names = sorted({name for has in nodes.values() for name, amount in has.items() if amount})
        self._most = {name: max(has.get(name, 0.0) for has in nodes.values()) for name in names}
        # Recompute free amounts from scratch: nodes may have joined, left, or changed their totals.
        self._free = {node: dict(has) for node, has in nodes.items()}
        for use in self.uses.values():
            _add(self._free, use, -1)

    def leave_out(self, nodes: Collection[str]) -> None:
        """Exclude these nodes until `see` is called without them."""
        self._dead.update(nodes)

    def best_fit(
        self, resources: Amounts, count: int, *,
        without: Collection[str] = (), first: Collection[str] = (), last: Collection[str] = (),
    ) -> tuple[str, ...]:  # fmt: skip
        """Return the ``count`` nodes with room that have the least free; none if there are fewer.

        Nodes in ``first`` are taken before all others, and those in ``last`` after them.
        """
        # Amounts are divided by the largest on any node, so that cores and GPUs count alike.
        room = [
            (
                node in last,
                node not in first,
                sum(free[name] / most for name, most in self._most.items() if name in free),
                node,
            )
            for node, free in self._free.items()
            if node not in self._dead and node not in without and has_room(free, resources)
        ]
        # Least free first: large gaps stay available for wide trials.
        return tuple(node for *_, node in sorted(room)[:count]) if len(room) >= count else ()

    def earliest(
        self, resources: Amounts, count: int, *, without: Collection[str], now_s: float
    ) -> tuple[float, set[str]]:
        """Return when ``count`` nodes have room, by the predicted ends of uses, and which; none if never."""
        free = {node: dict(has) for node, has in self._free.items() if node not in (*self._dead, *without)}
        room = [node for node, has in free.items() if has_room(has, resources)]
        for use in sorted(self.uses.values(), key=lambda use: use.until_s):
            if len(room) >= count:
                break
            now_s = max(now_s, use.until_s)
            _add(free, use, +1)
            on = [node for node in use.nodes if node in free and node not in room]
            room += [node for node in on if has_room(free[node], resources)]
        return now_s, set(room[:count]) if len(room) >= count else set()

    def could_hold(self, resources: Amounts, count: int, *, without: Collection[str] = ()) -> bool:
        """Return whether there is room on the known nodes, without some, if nothing else runs."""
        fits = (has_room(has, resources) for node, has in self.total.items() if node not in without)
        return sum(fits) >= count

    def slots(self, resources: Amounts, count: int, *, without: Collection[str] = ()) -> int:
        """Count the trials of one kind, each on ``count`` nodes, that fit at once if nothing else runs."""
        rooms = [
            min(
                (int(has.get(name, 0) / amount + _ROUNDING) for name, amount in resources.items() if amount),
                default=0,
            )
            for node, has in self.total.items()
            if node not in self._dead and node not in without
        ]
        # A node counts once in each trial: k trials need min(its room, k) of every node, k·count in all.
        most = sum(rooms) // count
        while sum(min(room, most) for room in rooms) < most * count:
            most -= 1
        return most

    def take(self, who: str, use: Use) -> None:
        """Take resources for ``who``."""
        self.uses[who] = use
        _add(self._free, use, -1)

    def give_back(self, who: str) -> None:
        """Return everything that ``who`` has taken; does nothing if it has taken nothing."""
        if who in self.uses:
            _add(self._free, self.uses.pop(who), +1)


def _add(free: dict[str, dict[str, float]], use: Use, sign: int) -> None:
    for has in (free[node] for node in use.nodes if node in free):
        for name, amount in use.resources.items():
            has[name] = has.get(name, 0.0) + sign * amount


def has_room(has: Mapping[str, float], needs: Amounts) -> bool:
    """Return whether a node with these resources has room for what is needed."""
    return all(has.get(name, 0.0) >= amount - _ROUNDING for name, amount in needs.items())


def no_room_text(resources: Amounts, count: int, nodes: Iterable[Amounts], what: str = "trial") -> str:
    """Describe that a trial, or ``what``, with ``resources`` on each of ``count`` nodes, fits on no nodes."""
    no_node = "no node has" if count == 1 else f"there are no {count} nodes that have"
    return f"{no_node} room for a {what} of {_amounts_text(resources)}; nodes have: {nodes_text(nodes)}"


def nodes_text(nodes: Iterable[Amounts]) -> str:
    """Describe the resources of nodes; equal nodes are counted."""
    kinds = Counter(map(_amounts_text, nodes))
    return "; ".join(f"{count} × {text}" if count > 1 else text for text, count in kinds.items()) or "none"


def _amounts_text(resources: Amounts) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount)
