"""Source of a pool, and options of building it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from runners.data.build.sources.source import Columns
from runners.data.pool.damage import damage_table
from runners.host.workers import Processes, Workers


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """Source of a pool, and options of building it.

    Attributes:
        source: A folder of tars, or a table of image paths and captions.
        columns: Names of the columns or fields.
        evaluation: Folders of evaluation sets; pairs with one of their images are left out.
        workers: Workers that read the source and write shards.
        in_place: True to index the source's tars without writing shards; the pool's folder is then the
            source, unless ``url`` is set.
        url: URL of tars, instead of ``source``.
        to: URL that the pool is written to; its folder is then a copy (`runners.data.places.shared_folder`).
        provenance: Additional facts to record about the source.
        left_out: Samples left out before the build, for example because the download failed.
        scores: Table of columns by ``hash`` that replace the source's columns.
    """

    source: Path
    columns: Columns = field(default_factory=Columns)
    evaluation: Sequence[Path] = ()
    workers: Workers = field(default_factory=Processes)
    in_place: bool = False
    url: str = ""
    to: str = ""
    provenance: Mapping[str, object] = field(default_factory=dict)
    left_out: pd.DataFrame = field(default_factory=lambda: damage_table([]))
    scores: Path | None = None

    @property
    def recorded(self) -> bool:
        """True if the pool records the source's files, so that a later build can add new ones."""
        return not self.in_place and self.scores is None and "urls" not in self.provenance

    @property
    def source_text(self) -> str:
        """The source as the pool's provenance records it."""
        return self.url or str(self.source.resolve())

    @property
    def options(self) -> dict[str, object]:
        """The options that decide which pairs a part of the source has."""
        columns = {f"--{name}": value for name, value in asdict(self.columns).items()}
        return {**columns, "--without": sorted(path.resolve().name for path in self.evaluation)}
