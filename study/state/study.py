"""A study with its folders and storage: a declared one with the jobs of its trials, or an imported one."""

import json
import os
import re
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from math import nan
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from budgets.declaration.declaration import Declaration
from budgets.names import one_line, unknown
from budgets.planning.facts import Component
from budgets.planning.planned_trial import Trial, shorter_trials
from runners.results import read_table, write_table
from runners.scheduling.nodes import Amounts
from runners.store.copies import trial_copies
from runners.store.files import matching, new_file, read_bytes, read_json, read_sealed
from runners.store.location import Location
from runners.trials.trial_files import read_failure, read_outcome
from runners.trials.trial_job import TrialJob
from study.declare import DECLARATIONS, shipped_studies
from study.declare.dump import dump_declaration
from study.declare.load import load_declaration
from study.storage.bucket_storage import BucketStorage
from study.storage.folder_storage import FolderStorage
from study.storage.lock import active_run

_LOOK_S = 2.0
COPIES = "copies.json"
"""File of a study with the copy of each subset that its trials read from one, and how far copying is."""

RECORD = "import.json"
"""The file that marks the folder of an imported study; it holds the origin of its results."""

_FACTS = {"metric": str, "title": str, "table": str, "sha256": str, "map": str, "rows": int}


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A declared study and its folders.

    Attributes:
        source: The declaration's file; None if the declaration was made in code.
        folder: ``results/<name>``.
        pools: Folder of generated pools.
        storage: The storage that nodes and drivers share.
    """

    declaration: Declaration
    folder: Path
    pools: Path
    storage: FolderStorage
    source: Path | None = None

    @property
    def word(self) -> str:
        """The study as an argument of a command in a shell: its file, or its name if it is shipped."""
        shipped = self.source is None or self.source.parent == DECLARATIONS
        return self.declaration.name if shipped else shlex.quote(str(self.source))

    @property
    def pool_folders(self) -> dict[str, Path]:
        """Folder of each pool, by name; for a pool below a URL, the folder of its description's copy."""
        return {
            name: self.place_here(pool.path) if pool.path is not None else self.pools / pool.content
            for name, pool in self.declaration.sources.items()
        }

    @property
    def copies(self) -> Mapping[str, Path]:
        """Folder of the copy of each subset that has one, by the subset's `subset_key`."""
        names = self._copies_record.get("copies", {})
        places = {key: self.place_here(self.copy_place(name)) for key, name in names.items()}
        return {key: folder for key, folder in places.items() if (folder / "pool.json").exists()}

    @property
    def copying(self) -> str:
        """The copy of subsets that is not finished, and how far it is, in words; empty if there is none."""
        return str(self._copies_record.get("copying", ""))

    @property
    def _copies_record(self) -> Mapping[str, Any]:
        with suppress(FileNotFoundError):
            return read_sealed(self.folder / COPIES, "run the study again to rewrite it")
        return {}

    def copy_place(self, name: str) -> Location:
        """Return the place, which all nodes see, of a copy of subsets of a pool."""
        storage = Location(self.declaration.storage or "")
        return Location(self.pools / name) if storage.local is not None else storage / "copies" / name

    @property
    def calibration(self) -> Path:
        """The file that ``calibrate`` writes."""
        return self.folder / "throughput.json"

    @property
    def evaluation(self) -> dict[str, Path]:
        """Evaluation sets by name: those in the pools' folders, then those of the declaration."""
        brought = (path for folder in self.pool_folders.values() for path in own_sets(folder))
        return {path.name: path for path in brought} | {
            name: self.place_here(path) for name, path in self.declaration.evaluation.items()
        }

    @property
    def plan_tables(self) -> dict[str, str]:
        """Part of the study by table of its planned trials: ``tuning`` if one is declared, then ``grid``."""
        # An earlier declaration may have had a tuning, whose table stays.
        tuning = {} if self.declaration.tuning is None else {"tuning-plan.parquet": "tuning"}
        return tuning | {"plan.parquet": "grid"}

    def write_declaration(self) -> None:
        """Write the declaration, from which the folder's tables are derived; the plan of another one goes."""
        path, text = self.folder / "study.yaml", dump_declaration(self.declaration)
        if not path.is_file() or read_bytes(path) != text.encode():
            for table in ("plan.parquet", "left-out.parquet", "scores.parquet"):
                (self.folder / table).unlink(missing_ok=True)
        with new_file(path) as file:
            file.write_text(text, encoding="utf-8")

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table of its folder, which says that it was derived from the declaration."""
        write_table(self.folder / name, frame, source=_source(dump_declaration(self.declaration).encode()))

    def read_table(self, name: str) -> pd.DataFrame:
        """Read a table of its folder.

        Raises:
            ValueError: The table is missing, damaged or was changed; has another row than the result of a
                trial in the folder; or was derived from another declaration than the last run's, and neither
                has only rows of such trials nor is rewritten by an active run.
        """
        path, declared, source = self.folder / name, self.folder / "study.yaml", None
        of_trials = name in {"results.parquet", "tuning.parquet"} and (self.folder / "trials").is_dir()
        if of_trials and self._are_results(path, table := read_table(path)):
            return table
        if declared.exists() and active_run(self.folder) is None:
            source = _source(read_bytes(declared))
        return read_table(path, source=source)

    def _are_results(self, path: Path, table: pd.DataFrame) -> bool:
        """Return whether each row is the result in a trial's folder; ValueError if it differs from that."""
        complete = True
        for row in table.to_dict("records"):
            folder = self.trial_folder(row["trial"])
            if row["status"] == "failed" or (outcome := read_outcome(folder)) is None:
                complete &= read_failure(folder) is not None
                continue
            measured = {str(name): nan for name in row if "/" in str(name)} | dict(outcome.row)
            measured["quality"] = row["quality"]  # a mixture of one pool has the pairs of that pool
            for name, known in measured.items():
                if (value := row.get(name)) != one_line(known) and not (pd.isna(value) and pd.isna(known)):
                    raise ValueError(
                        f"{path} has {name} {value} of trial {row['trial']}, whose result.json has "
                        f"{known}; delete the table and run the study again"
                    )
        return complete

    def trial_folder(self, trial_id: str) -> Path:
        """Return the folder of a trial."""
        return self.folder / "trials" / trial_id

    def require_run(self, *tables: str) -> None:
        """Refuse a study that has none of these tables.

        Raises:
            ValueError: The study has not been run, or its first run is still preparing or tuning.
        """
        if self.has(tables):
            return
        holder, command = active_run(self.folder), f"`python -m study run {self.word}`"
        if self.has(self.plan_tables):
            then = f"{command} continues" if holder is None else f"it is running ({holder}); try again later"
            tuned = "" if self.declaration.tuning is None else ", only of its tuning"
            raise ValueError(f"{self.folder} has no results of its grid yet{tuned}; {then}")
        if holder is not None:
            raise ValueError(
                f"{self.folder} has no results yet: its run is preparing, and may be building a pool "
                f"({holder}). Try again later"
            )
        raise ValueError(f"{self.folder} has no results; run {command} first")

    def refresh(self, *, note: Callable[[str], None]) -> None:
        """Update its folder from a storage that is a bucket; from the last local copy if there is only that.

        ``note`` is called with a line on a storage that can't be reached, or on what it waits for.

        Raises:
            OSError: The storage can't be reached, and there is no copy of the study.
            ValueError: Likewise, if the storage is wrong.
        """
        try:
            self.storage.refresh(note)
        except (ValueError, OSError) as error:
            if not self.has(self.plan_tables):
                raise
            note(f"{error}; showing the last local copy")

    def await_run(self, *tables: str, say: Callable[[str], None]) -> None:
        """Wait while a run is active that has written none of these tables yet; say so once."""
        told = False
        while not self.has(tables) and (holder := active_run(self.folder)) is not None:
            if not told:
                say(f"waiting: the run is preparing or tuning ({holder})")
            told = True
            time.sleep(_LOOK_S)
            self.storage.refresh()

    def has(self, tables: Iterable[str]) -> bool:
        """Return whether its folder has any of these tables."""
        return any(os.path.lexists(self.folder / table) for table in tables)

    def place_here(self, place: str | Location) -> Path:
        """Return the folder of a pool or set: its path, or that of the copy of its description."""
        there = Location(place)
        return self.pools / there.copy_name if there.local is None else there.local


def own_sets(pool: Path) -> list[Path]:
    """Return the folders of the evaluation sets that a pool brings."""
    return sorted(path for path in matching(pool / "evaluation", "*") if path.is_dir())


def find_study(
    declaration: Declaration, *, results: str | None, pools: str | None, source: Path | None = None
) -> Study:
    """Return the study of a declaration with its folders.

    ``results`` is the folder of studies: by default below the declared storage folder, if any, else below the
    working directory. ``pools`` likewise, but for a bucket it is in this machine's cache.
    """
    place = Location(declaration.storage or "")
    folder = Path(results or (place.local or Path()) / "results") / declaration.name
    storage = (
        FolderStorage(folder) if place.local else BucketStorage(place, f"results/{declaration.name}", folder)
    )
    generated = Path(pools or (place.local or trial_copies(place)) / "pools")
    return Study(declaration=declaration, folder=folder, pools=generated, storage=storage, source=source)


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """An imported study.

    Its folder has ``map.yaml``, ``results.parquet``, and ``dropped.parquet``: ``trial`` (such as ``row-7``)
    and ``reason`` of each row of the table that was dropped.

    Attributes:
        folder: ``results/<name>``.
        record: Origin of the results: ``metric``, ``title``, ``table`` (file name), ``sha256`` of the table,
            ``map`` (file name), ``rows`` (number of rows in the table).
    """

    name: str
    folder: Path
    record: dict[str, Any]

    @property
    def metric(self) -> str:
        """The metric of its results."""
        return str(self.record["metric"])

    def read_table(self, name: str) -> pd.DataFrame:
        """Read a table of its folder; ValueError if it is missing, was changed, or is of another import."""
        return read_table(self.folder / name, source=import_source(self.folder))


def import_source(folder: Path) -> str:
    """Return what the tables of an imported study were derived from: its record, with its table, and map."""
    record = read_bytes(folder / RECORD) + read_bytes(folder / "map.yaml")
    return f"an import's record and map (SHA-256 {sha256(record).hexdigest()[:16]})"


def _source(origin: bytes) -> str:
    """Return the words for a declaration from which tables were derived."""
    name = re.search(rb"^study: *([\w.-]+)$", origin, re.MULTILINE)
    what = f"study.yaml of {name[1].decode()}" if name else "study.yaml without a name"
    return f"{what} (SHA-256 {sha256(origin).hexdigest()[:16]})"


def open_study(name: str, *, results: str | None = None, pools: str | None = None) -> Study | Imported:
    """Return a study by its declaration's file or its name; every command and Python find studies by this.

    A name that ends in ``.yaml`` or ``.yml`` is a file; any other is looked up in `known_studies` of the
    folder of studies ``results``, see `find_study`.

    Raises:
        ValueError: There is no such study, its declaration is wrong or has the name of an imported study, or
            the record of an imported one is damaged.
    """
    source, known = Path(name), known_studies(Path(results or "results"))
    if source.suffix not in {".yaml", ".yml"}:
        if name not in known:
            raise ValueError(f"{unknown('study', name, known)}, or a path that ends in .yaml")
        source = known[name]
    elif not source.is_file():
        raise ValueError(f"no such declaration file: {name}")
    if source.name == RECORD:
        return _imported(source)
    study = find_study(load_declaration(source), results=results, pools=pools, source=source)
    if (study.folder / RECORD).exists():
        raise ValueError(f"{study.folder} is an imported study; change the declaration's name (study:)")
    return study


def known_studies(results: Path) -> dict[str, Path]:
    """Return each study's name → its declaration, or the record of an import.

    They are those in a folder of studies, and the shipped ones. A shipped declaration goes before one that a
    run saved, and an import before both.
    """
    folders = matching(results, "*")
    saved, imported = (
        # A folder of somebody else's, which may not be read, is passed over; `Path.exists` would raise.
        {folder.name: folder / name for folder in folders if os.path.exists(folder / name)}  # noqa: PTH110
        for name in ("study.yaml", RECORD)
    )
    return saved | shipped_studies() | imported


def _imported(record: Path) -> Imported:
    facts = read_json(record, "import the table again")
    if any(type(facts.get(fact)) is not kind for fact, kind in _FACTS.items()):
        raise ValueError(f"{record} is damaged; import the table again")
    return Imported(name=record.parent.name, folder=record.parent, record=facts)


def subset_key(part: Component, side: int | None) -> str:
    """Return the text that identifies a subset of a pool, its images resized to ``side`` if it is given."""
    return json.dumps([part.name, part.pool, part.quality, part.pairs, side])


def needs(study: Study, trial: Trial) -> Amounts:
    """Return the resources that a trial needs on each of its nodes."""
    resources = trial.resources
    shares = {"cpus": resources.cpus, "gpus": resources.gpus} | study.declaration.resources.custom
    return {name: amount / resources.nodes for name, amount in shares.items()}


def trial_job(study: Study, trial: Trial, trials: Mapping[str, Trial] = MappingProxyType({})) -> TrialJob:
    """Return a trial's job: the paths of its data and its resources on one node.

    ``trials`` are those whose milestones it may continue from, by id; that of a newer attempt comes first.
    """
    firsts = [shorter.first_id for shorter in shorter_trials(trial, trials)]
    attempts = sorted(trials.values(), key=lambda attempt: -attempt.attempt) if firsts else []
    trunk = [attempt.trial_id for first in firsts for attempt in attempts if attempt.first_id == first]
    resources, declared = trial.resources, study.declaration.resources
    copies, side = study.copies, trial.recipe.resized_images
    pools = (copies.get(subset_key(part, side), study.pool_folders[part.name]) for part in trial.components)
    return TrialJob(
        trial=trial,
        pools=tuple(folder.resolve() for folder in pools),
        evaluation={name: path.resolve() for name, path in study.evaluation.items()},
        probes=study.declaration.probes,
        evaluate_at=study.declaration.evaluate_at,
        folder=study.trial_folder(trial.trial_id).resolve(),
        subsets=study.storage.place / "subsets",
        cpus=resources.cpus // resources.nodes,
        gpus=resources.gpus // resources.nodes,
        ranks=resources.ranks_per_node,
        checkpoint_s=declared.checkpoint_s,
        checkpoint_steps=declared.checkpoint_steps,
        hang_s=declared.hang_s,
        loader_bytes=declared.loader_memory,
        damage_tolerance=study.declaration.limits.damage,
        trunk=tuple(study.trial_folder(trial_id).resolve() for trial_id in trunk),
    )
