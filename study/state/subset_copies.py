"""The subsets that trials of a study read: what reading them fetches, and the copies that it declares."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from budgets.planning.facts import Component
from budgets.planning.plan import Plan
from runners.data.build.subset_copy import SubsetCopy, amplification
from runners.data.pool.pool import Pool
from study.state.study import Study, subset_key

_NOTABLE = 1.5
_MOST_PAIRS = 2_000_000  # of a pool whose subsets `plan` selects


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSubset:
    """A subset that trials read.

    ``amplification`` are the bytes that reading it fetches, over the bytes of its images.
    """

    part: Component
    pool: Pool
    amplification: float

    @property
    def words(self) -> str:
        """The subset in words."""
        pairs = f"{self.part.pairs:,} of {self.pool.count:,} pairs of {self.pool.name}"
        return f"{pairs} ({self.part.quality})"


def read_subsets(study: Study, plan: Plan, *, most_pairs: int | None = None) -> Iterator[ReadSubset]:
    """Yield the subsets that the trials of a plan read, smallest first, of pools that exist.

    ``most_pairs`` leaves out larger pools.
    """
    parts = {
        (part.name, part.pool, part.quality, part.pairs): part
        for trial in plan.all_trials
        for part in trial.components
    }
    pools: dict[tuple[str, str], Pool] = {}
    for part in sorted(parts.values(), key=lambda part: part.pairs):
        folder = study.pool_folders[part.name]
        described = study.declaration.sources[part.name].described
        if described or not (folder / "pool.json").exists():
            continue
        key = part.name, part.pool
        if key not in pools:
            tolerance = study.declaration.limits.damage
            pools[key] = Pool.open(folder, tolerance=tolerance, holding=part.pool)
        pool = pools[key]
        # Of a folder, exactly the images' bytes are read.
        in_pieces = part.pairs < pool.count and pool.place.ahead_bytes > 0
        small = most_pairs is None or pool.count <= most_pairs
        subset = pool.subset(size=part.pairs, quality=part.quality) if in_pieces and small else None
        factor = 1.0 if subset is None else amplification(pool, subset)
        yield ReadSubset(part=part, pool=pool, amplification=factor)


def _is_copied(study: Study, subset: ReadSubset) -> bool:
    """Return whether trials read a copy: of all subsets if images are resized, else from a factor on."""
    least = study.declaration.materialise_from
    if study.declaration.training.recipe.resized_images is not None:
        return True
    return least is not None and subset.part.pairs < subset.pool.count and subset.amplification >= least


def copies_of(study: Study, plan: Plan) -> Iterator[tuple[SubsetCopy, Collection[str]]]:
    """Yield the copies that a study declares, each with the `subset_key` of its subsets."""
    side, tolerance = study.declaration.training.recipe.resized_images, study.declaration.limits.damage
    if side is None and study.declaration.materialise_from is None:
        return
    by_pool: dict[str, list[ReadSubset]] = {}
    for subset in read_subsets(study, plan):
        if _is_copied(study, subset):
            by_pool.setdefault(subset.part.name, []).append(subset)
    for of_pool in by_pool.values():
        parts = [subset.part for subset in of_pool]
        subsets = [(part.pool, part.pairs, part.quality) for part in parts]
        copy = SubsetCopy(pool=of_pool[0].pool, subsets=subsets, side=side, tolerance=tolerance)
        yield copy, [subset_key(part, side) for part in parts]


def amplification_lines(study: Study, plan: Plan) -> Iterator[str]:
    """Yield a line for each subset that is read at notably more than its size."""
    least = study.declaration.materialise_from
    for subset in read_subsets(study, plan, most_pairs=_MOST_PAIRS):
        follows = "they are not copied: materialise_from is off"
        if _is_copied(study, subset):
            follows = "the run copies them first, once for all trials"
        elif least is not None:
            follows = f"they are not copied: materialise_from is {least:g}"
        if subset.amplification >= _NOTABLE:
            fetched = f"fetches {subset.amplification:.1f} times the bytes of their images"
            yield f"reading {subset.words} {fetched}: {follows}"
