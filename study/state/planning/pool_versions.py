"""Versions and rankings of the pools that a study was planned on.

A study keeps to a version if shards are added. The rankings by which its last run took ``topN`` are compared
with the present ones.
"""

import json
from collections.abc import Mapping
from typing import Any

from budgets.declaration.data_sections import FolderPool
from budgets.planning.plan import Plan
from budgets.quality import score_of_quality
from runners.data.index.writing import VERSIONS
from runners.data.pool.pool import version_of
from runners.host.files import write_json
from study.state.study import Study

POOL_VERSION = "pool-version.json"
"""File of a study that names the version of the pool that it was planned on."""

_RANKINGS = "rankings.json"


def pool_versions(study: Study) -> dict[str, str]:
    """Return the version of each declared pool that the study's runs use; empty before its first run.

    A pool that the declaration has renamed is known by its path, one that was moved by its name.
    """
    known, declared, found = _recorded(study), _folder_pools(study), dict[str, str]()
    by_path = {each.get("pool"): each for each in known.values()}
    for name, path in declared.items():
        same, named = by_path.get(path), known.get(name)
        moved = named is not None and named.get("pool") not in declared.values()
        if (of := same or (named if moved else None)) is not None:
            found[name] = of["version"]
    return found


def keep_pool_versions(study: Study) -> None:
    """Record the present version of each pool; the study keeps to it if shards are added."""
    known, kept = pool_versions(study), dict[str, dict[str, str]]()
    for name, path in _folder_pools(study).items():
        facts = json.loads((study.pool_folders[name] / "pool.json").read_text(encoding="utf-8"))
        kept[name] = {"pool": path, "version": known.get(name) or version_of(facts)}
    if kept.keys() - known.keys():
        # Pools that the declaration no longer names keep their versions, in case it names them again.
        every = _recorded(study) | kept
        write_json(study.folder / POOL_VERSION, every[""] if every.keys() == {""} else {"pools": every})


def _folder_pools(study: Study) -> dict[str, str]:
    """Return the declared path of each pool that has a folder or a URL, by its name."""
    sources = study.declaration.sources
    return {name: pool.path for name, pool in sources.items() if isinstance(pool, FolderPool)}


def _recorded(study: Study) -> dict[str, dict[str, str]]:
    """Return the path and version of each recorded pool, by the name that it had; empty without a record."""
    file = study.folder / POOL_VERSION
    if not file.exists():
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        return {
            name: {**each, "version": str(each["version"])}
            for name, each in facts.get("pools", {"": facts}).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} does not name the version of a pool ({error!r}); restore it, or delete it if no shards "
            "were added since the study's first run: the next run writes it again"
        ) from error


def keep_rankings(study: Study, plan: Plan) -> None:
    """Record for each quality and mixture of a plan the ids of its pools, which depend on their rankings."""
    kept = {
        trial.cell.quality: [[each.name, each.quality, each.pool] for each in trial.components]
        for trial in plan.all_trials
    }
    write_json(study.folder / _RANKINGS, kept)


def ranked_anew(study: Study) -> set[str]:
    """Return the qualities and mixtures of the last run whose pairs a later score has changed.

    Only ``pool.json`` is read; of a pool below a URL, that of this machine's copy.

    Raises:
        ValueError: The study's record of its rankings is damaged.
    """
    file = study.folder / _RANKINGS
    if not file.exists():
        return set()
    pools = {name: _facts(study, name) for name in study.declaration.sources}
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return {
            quality
            for quality, parts in kept.items()
            if any(_id_now(pools.get(name, {}), part, known) != known for name, part, known in parts)
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged ({error}); run the study again to rewrite it") from error


def _id_now(facts: Mapping[str, Any], quality: str, known: str) -> str:
    """Return the present content id of a quality's pairs; the known one if the pool's facts give none."""
    if not quality.startswith("top"):
        return known
    score = score_of_quality(quality)
    ranking = facts if score is None else facts.get("rankings", {}).get(score, {})
    return str(ranking.get("fingerprint", known))


def _facts(study: Study, name: str) -> Mapping[str, Any]:
    """Return the facts of a pool in the version that the study keeps to; empty without such a file."""
    if not isinstance(study.declaration.sources[name], FolderPool):
        return {}
    folder, version = study.pool_folders[name], pool_versions(study).get(name)
    for file in (folder / "pool.json", *sorted((folder / VERSIONS).glob("*.json"))):
        try:
            facts: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if version in {None, version_of(facts)}:
                return facts
        except (OSError, ValueError, KeyError):  # `plan` reports the error
            continue
    return {}
