"""Checks of pools and mixtures, against each other and against the grid."""

from collections.abc import Mapping, Sequence

from budgets.declaration.data_sections import DeclaredPool, DescribedPool, MixedPool
from budgets.declaration.keys import Clashes
from budgets.declaration.sections import Exclusion, GridBlock
from budgets.names import unknown

Mixtures = Mapping[str, Mapping[str, MixedPool]]
"""Name → the pools of a mixture."""


def pool_clashes(pool: DeclaredPool | None, pools: Mapping[str, DeclaredPool], mixtures: Mixtures) -> Clashes:
    """Yield pools without mixtures, mixtures without pools, and pools that can't be mixed."""
    if pool is not None:
        for key, given in (("pools", pools), ("mixtures", mixtures)):
            if given:
                yield key, f"{key} is not allowed with pool: name each pool under pools"
    elif not (pools and mixtures):
        missing = "mixtures" if pools else "pools" if mixtures else "pool"
        yield missing, f"{missing} is missing: declare a pool, or pools and mixtures of them"
    described = [isinstance(each, DescribedPool) for each in (pools.values() if pool is None else (pool,))]
    if any(described) and not all(described):
        yield "pools", "pools: either all of them are described (name, pairs, scored), or none"
    for name, parts in mixtures.items():
        yield from _parts(f"mixtures.{name}", parts, pools)


def _parts(at: str, parts: Mapping[str, MixedPool], pools: Mapping[str, DeclaredPool]) -> Clashes:
    """Yield errors of a mixture: no pools, unknown ones, or weights for only some of them."""
    if not parts:
        yield at, f"{at} names no pool"
    for pool in parts:
        if pool not in pools:
            yield f"{at}.{pool}", f"{at}: {unknown('pool', pool, pools)}"
    bare = [pool for pool, part in parts.items() if part.weight is None]
    if bare and len(bare) < len(parts):
        said = "weight is missing: give each pool of the mixture one, or none of them"
        yield f"{at}.{bare[0]}", f"{at}.{bare[0]}.{said}"


def mixture_clashes(mixtures: Mixtures, grid: Sequence[GridBlock], exclude: Sequence[Exclusion]) -> Clashes:
    """Yield blocks and rules of the grid that contradict the mixtures."""
    counted = [
        name for name, parts in mixtures.items() if any(part.pairs is not None for part in parts.values())
    ]
    for number, block in enumerate(grid, start=1):
        yield from _named(f"grid[{number}]", block, mixtures)
        here = [name for name in counted if name in (block.mixtures or counted)]
        if here and block.sizes != (None,):
            at = f"grid[{number}].sizes"
            yield at, f"{at}: the mixture {here[0]} declares pairs of its pools, so only all is allowed"
    for number, rule in enumerate(exclude, start=1):
        yield from _named(f"exclude[{number}]", rule, mixtures)


def _named(at: str, of: GridBlock | Exclusion, mixtures: Mixtures) -> Clashes:
    """Yield mixtures that are not declared, and a quality beside mixtures."""
    for name in of.mixtures:
        if name not in mixtures:
            yield f"{at}.mixtures", f"{at}.mixtures: {unknown('mixture', name, mixtures)}"
    if mixtures and of.quality != (() if isinstance(of, Exclusion) else ("all",)):
        instead = "mixtures: {NAME: {POOL: {quality: top20}}}"
        yield f"{at}.quality", f"{at}.quality: a mixture's pools have their own quality: {instead}"
