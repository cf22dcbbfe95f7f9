"""Generator of docs/results.md, the columns of a study's tables, from `runners.results.TABLES`."""

from collections.abc import Mapping
from pathlib import Path

from runners.results import TABLES, TableColumn

PAGE = Path(__file__).resolve().parents[1] / "results.md"

_INTRODUCTION = """# Columns of the tables

`results/STUDY/` holds these tables. pandas, polars, DuckDB or any other reader of Parquet can open them:

```python
import pandas as pd

results = pd.read_parquet("results/small/results.parquet")
results.query("status == 'finished'").groupby(["architecture", "level_flops"])["held-out/top1"].mean()
```

- Each file's metadata has the schema version (`schema_version`) and the FLOP convention (`convention`).
- `results.parquet` holds only deterministic values: the same trial on the same kind of hardware gives the
  same bytes. Times and speeds are in [`events.jsonl`](watching.md#for-programs).
- FLOPs follow the convention in [Method](method.md#compute). Those of a whole trial are float64 in these
  tables (exact below 2⁵³) and integers in `ledger.jsonl`.
- A tuning has the same tables: `tuning-plan.parquet` has the columns of `plan.parquet`, and
  `tuning.parquet` begins with those of `results.parquet`.

This page is generated from `runners/results.py` by `python -m docs.build.reference`; a test compares
the two."""
_SECTIONS = {
    "results.parquet": """One row per trial that ended, in the order of the plan. For a `diverged` trial,
samples, steps, epochs and training FLOPs are those done before it diverged, and there are no metrics. For a
`failed` trial these numbers, and the evaluation FLOPs, are 0.

After the columns below there is one float64 column per metric, `<evaluation set>/<metric>`, and one for its
standard error, `<evaluation set>/<metric>_se`: `held-out/top1`, `held-out/top1_se`.
[Evaluation](evaluation.md#what-is-measured) lists the metrics. Accuracies are fractions from 0 to 1.""",
    "curves.parquet": "Training curves: several rows per trial with a result; `trial` joins them to results.",
    "midway.parquet": """Metrics at the shares of a trial's steps that `evaluation.at` declares: one row per
evaluation before the end, whose metrics follow as in `results.parquet`. Written if there are any.""",
    "plan.parquet": "One row per planned trial, written when a run starts.",
    "left-out.parquet": "One row per cell that the plan leaves out, in whole or for some of its seeds.",
}


def columns_page() -> str:
    """Return the whole page."""
    parts = [_INTRODUCTION]
    for name, columns in TABLES.items():
        parts += [f"## `{name}`", _SECTIONS[name], _table(columns)]
    return "\n\n".join(parts) + "\n"


def _table(columns: Mapping[str, TableColumn]) -> str:
    rows = [
        f"| `{name}` | {column.meaning} | {column.unit or '–'} | {column.kind} |"
        for name, column in columns.items()
    ]
    return "\n".join(["| column | meaning | unit | type |", "|---|---|---|---|", *rows])
