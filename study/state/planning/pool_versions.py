"""Versions of the pools that a study was planned on; it keeps to them if shards are added."""

import json

from budgets.declaration.data import FolderPool
from runners.data.pool.pool import version_of
from runners.host.files import write_json
from study.state.study import Study

POOL_VERSION = "pool-version.json"
"""File of a study that names the version of the pool that it was planned on."""


def pool_versions(study: Study) -> dict[str, str]:
    """Return the version of each pool that the study's runs use; empty before its first run."""
    file = study.folder / POOL_VERSION
    if not file.exists():
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        return {name: str(each["version"]) for name, each in facts.get("pools", {"": facts}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} does not name the version of a pool: {error!r}") from error


def keep_pool_versions(study: Study) -> None:
    """Record the present version of each pool; the study keeps to it if shards are added."""
    known, kept = pool_versions(study), dict[str, dict[str, str]]()
    for name, pool in study.declaration.sources.items():
        if isinstance(pool, FolderPool):
            facts = json.loads((study.pool_folders[name] / "pool.json").read_text(encoding="utf-8"))
            version = known.get(name) or version_of(facts)
            kept[name] = {"pool": pool.path, "version": version}
    if kept.keys() - known.keys():
        write_json(study.folder / POOL_VERSION, kept.get("", {"pools": kept}))
