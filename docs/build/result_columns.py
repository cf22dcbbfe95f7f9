"""Generator of docs/results.md: columns of a study's tables and frames, and how to open them in Python."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from analysis.report.answer_frames import FRAMES, RECOMMENDATION
from runners.results import TABLES

PAGE = Path(__file__).resolve().parents[1] / "results.md"

_INTRODUCTION = """# Columns of the tables

`results/STUDY/` holds these tables. pandas, polars, DuckDB or any other reader of Parquet can open them:

```python
import pandas as pd

results = pd.read_parquet("results/small/results.parquet")
results.query("status == 'finished'").groupby(["architecture", "level_flops"])["held-out/top1"].mean()
```

- Each file's metadata has the schema version (`schema_version`), the FLOP convention (`convention`), what the
  table was derived from (`source`) and a digest of all (`digest`): the commands refuse a table that was
  [changed](faults.md#edited-or-damaged-files). To change one, make a table of your own, and `import` it.
- `results.parquet` holds only deterministic values: the same trial on the same kind of hardware gives the
  same bytes. Times and speeds are in [`events.jsonl`](watching.md#for-programs).
- FLOPs follow the convention in [Method](method.md#compute). Those of a whole trial are float64 in these
  tables (exact below 2⁵³).
- A tuning has the same tables: `tuning-plan.parquet` begins with the columns of `plan.parquet`, and
  `tuning.parquet` with those of `results.parquet`. Both end with a column `tuned_<field>` for each tuned
  field.
- Tables of imported studies lack what the imported table does not say; whole numbers in them may be float64.

This page is generated from `runners/results.py` and `analysis/report/answer_frames.py` by
`python -m docs.build.reference`; a test compares them."""
_IN_PYTHON = """## In Python

[`Study`](python.md) has the tables above as `study.results`, `study.curves` and `study.plan`, of which the
last two are empty for an imported study; rows of trunks are apart, as `study.trunks`. It has the answers of
the report as frames with the columns below.
Errors are fractions from 0 to 1, or values of a loss. Intervals are 90 %; NaN means unknown. Under
`fixed-compute`, `study.best().frame` has a row per `budget`. In the other regimes it has a row per compute,
`train_flops`, and `budget` is the samples of that row's trial, so it may repeat."""
_CALLS = {"best": "best().frame", "recommend": "recommend(flops=…, pairs=…).frame"}
_SECTIONS = {
    "results.parquet": """One row per trial that ended, in the order of the plan. For a `diverged` trial,
samples, steps, epochs and training FLOPs are those done before it diverged, and there are no metrics. For a
`failed` trial these numbers, and the evaluation FLOPs, are 0.

After the columns below there is one float64 column per metric, `<evaluation set>/<metric>`, and one for its
standard error, `<evaluation set>/<metric>_se`: `held-out/top1`, `held-out/top1_se`. With
`training.resized_images` there is also a float64 column `resized_images`, the pixels of the shorter side.
With `strategy_files` there are text columns `strategy_version`, the version of the file that has the trial's
strategy, and `strategy_label`, both empty for a shipped one. Rows of former versions come last.
With `evaluation.trunk` a text column `phase` is `trunk` for trials that end where a cooldown begins, else
empty; they have each metric twice: of their weights, and as `<metric>_average` of the mean of the last ones.
[Evaluation](evaluation.md#what-is-measured) lists the metrics. Accuracies are fractions from 0 to 1.""",
    "curves.parquet": "Training curves: several rows per trial with a result; `trial` joins them to results.",
    "midway.parquet": """Metrics at the shares of a trial's steps that `evaluation.at` declares: one row per
evaluation before the end, whose metrics follow as in `results.parquet`. Written if there are any.""",
    "plan.parquet": "One row per planned trial, written when a run starts.",
    "left-out.parquet": "One row per cell that the plan leaves out, in whole or for some of its seeds.",
    "scores.parquet": """What the [quality scores cost](data.md#what-a-score-costs): a row for each quality or
mixture with each model behind its score, and for each strategy with each model behind the columns that
it reads.""",
    "spent.parquet": """What the study [spent](faults.md#how-lost-work-is-measured): a row for each charge and
for each trial that has computed something, also of earlier declarations and of deleted folders.""",
}


def columns_page() -> str:
    """Return the whole page; a column whose meaning an earlier section has is only named."""
    parts, told = [_INTRODUCTION], set[tuple[str, ...]]()
    for name, columns in TABLES.items():
        parts += [f"## `{name}`", _SECTIONS[name]]
        parts += _table(
            [(one, column.meaning, column.unit or "–", column.kind) for one, column in columns.items()], told
        )
    parts.append(_IN_PYTHON)
    for name, frame in FRAMES.items():
        parts += [f"### `study.{_CALLS.get(name, name)}`", frame.content]
        parts += _table([(one, text, unit or "–") for one, (text, unit) in frame.columns.items()], told)
        if name == "recommend":
            parts += ["### A recommendation as JSON", RECOMMENDATION.content]
            parts += _table(
                [(key, text, unit or "–") for key, (text, unit) in RECOMMENDATION.columns.items()], told
            )
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[tuple[str, ...]], told: set[tuple[str, ...]]) -> Iterator[str]:
    """Yield the names of columns that were told, and a table of the others, which are told from then on."""
    if known := [f"`{column[0]}`" for column in columns if column[:2] in told]:
        yield f"As above: {', '.join(known)}."
    if new := [(f"`{column[0]}`", *column[1:]) for column in columns if column[:2] not in told]:
        head, *rows = (
            f"| {' | '.join(row)} |" for row in [("column", "meaning", "unit", "type")[: len(new[0])], *new]
        )
        yield "\n".join([head, "|---" * len(new[0]) + "|", *rows])
    told.update(column[:2] for column in columns)
