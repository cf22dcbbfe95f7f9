"""A study goes on with the version of the pool that it was planned on when later shards are taken up."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from budgets.declaration.data_sections import DeclaredPool, MixedPool
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.pool.pool import Pool
from runners.data.reading.training_set import InMemorySet
from runners.store.files import write_sealed
from runners.trials.trial_setup import load_subset
from study.state.plan_study import plan_study
from study.state.study import Study, trial_job
from study.state.study_facts import POOL_VERSION, keep_pool_versions, pool_versions
from tests.study.tiny_study import TinyStudy

pytestmark = pytest.mark.slow


@pytest.fixture
def growing(pool: Path, tmp_path: Path) -> Path:
    """Return shards of a user with an index, and evaluation sets."""
    for name in ("shards", "evaluation"):
        shutil.copytree(pool / name, tmp_path / "theirs" / name)
    return index(tmp_path / "theirs").path


@pytest.fixture
def study(growing: Path, tmp_path: Path) -> Study:
    """Return a study of them that has a folder."""
    study = TinyStudy(tmp_path, growing).study
    study.folder.mkdir(parents=True)
    return study


def grow(folder: Path) -> Pool:
    """Add a shard, and index it."""
    shutil.copytree(folder / "evaluation" / "retrieval" / "test", folder / "more")
    return index(folder)


def index(folder: Path) -> Pool:
    return build_pool(folder, Build(source=folder, in_place=True), lambda *_: None)


def ids(study: Study) -> dict[str, int]:
    return {trial.trial_id: trial.cell.subset_size for trial in plan_study(study).trials}


def test_a_study_that_has_begun_goes_on_and_a_new_one_takes_all_pairs(
    growing: Path, study: Study, tmp_path: Path
) -> None:
    before = ids(study)
    keep_pool_versions(study)
    assert pool_versions(study) == {"": Pool.open(growing).unranked}
    (trial,) = plan_study(study).trials

    more = Path(shutil.copytree(growing / "evaluation" / "retrieval" / "test", growing / "more")) / "0.tar"
    assert ids(study) == before, "shards that are not in the index do not matter to it"
    grown = index(growing)
    assert grown.count > sum(before.values())
    assert ids(study) == before
    keep_pool_versions(study)
    assert ids(study) == before
    data, _ = load_subset(trial_job(study, trial))
    assert isinstance(data, InMemorySet)
    assert len(data.parts[0].tokens) == trial.cell.subset_size

    other = replace(study, folder=tmp_path / "other")
    assert ids(other).keys().isdisjoint(before)
    more.unlink()  # missing shards of the later version are no damage to the earlier one
    assert ids(study) == before


def test_a_renamed_pool_keeps_its_version(growing: Path, study: Study, pool: Path, tmp_path: Path) -> None:
    def mixed(**pools: Path) -> Study:
        sources: dict[str, DeclaredPool] = {
            name: DeclaredPool(path=str(path)) for name, path in pools.items()
        }
        mixtures = {"it": {name: MixedPool() for name in pools}}
        grid = tuple(replace(block, quality=("all",)) for block in study.declaration.grid)
        declaration = replace(study.declaration, pool=None, pools=sources, mixtures=mixtures, grid=grid)
        return replace(study, declaration=declaration)

    keep_pool_versions(mixed(web=growing))
    before = pool_versions(mixed(web=growing))["web"]
    assert grow(growing).unranked != before

    assert pool_versions(mixed(mine=growing)) == {"mine": before}
    swapped = mixed(mine=growing, web=pool)  # another pool has its name now
    assert pool_versions(swapped) == {"mine": before}
    keep_pool_versions(swapped)
    assert pool_versions(mixed(web=pool)) == {"web": Pool.open(pool).unranked}
    assert pool_versions(study) == {"": before}
    moved = growing.rename(tmp_path / "moved")
    assert pool_versions(mixed(mine=moved)) == {"mine": before}


def test_a_version_that_is_gone_is_one_clear_error(growing: Path, study: Study) -> None:
    keep_pool_versions(study)
    (growing / "pool.json").unlink()
    grow(growing)
    with pytest.raises(ValueError, match=r"index version \w+, .*\btiny\b"):
        plan_study(study)
    for damage in ("[]", "[" * 100_000):
        (study.folder / POOL_VERSION).write_text(damage)
        with pytest.raises(ValueError, match=r"pool-version\.json"):
            plan_study(study)
    present = {"pool": str(growing), "version": Pool.open(growing).unranked}
    write_sealed(study.folder / POOL_VERSION, {"pools": {"": present}})
    assert ids(study)
