"""Anyone's table, read by a map."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.column_map import Column, ColumnMap, import_table
from analysis.table import tidy

TABLE = pd.DataFrame(
    {
        "net": ["B/32", "B/32", "L/14", "L/14", "other"],
        "acc": [40.0, 50.0, 45.0, 60.0, 1.0],
        "seen": [1e8, 1e9, 1e8, 1e9, 1e9],
        "gmacs": [5.0, 5.0, 80.0, 80.0, 1.0],
        "task": ["imagenet"] * 4 + ["cifar"],
    }
)
HOW = ColumnMap(
    title="made up",
    rows={"task": ("imagenet",)},
    columns={
        "regime": Column(value="equal-samples"),
        "architecture": Column(source="net", names={"B/32": "ViT-B-32", "L/14": "ViT-L-14"}),
        "strategy": Column(value="clip"),
        "quality": Column(value="all"),
        "subset_size": Column(value="4e8"),
        "samples_seen": Column(source="seen"),
        "train_flops": Column(source="gmacs", times=6e9, by="seen"),
    },
    metric="imagenet/top1",
    metric_column=Column(source="acc", times=0.01),
    better="higher",
    images=50_000,
)  # fmt: skip


def test_rows_are_chosen_names_translated_and_flops_multiplied_out() -> None:
    trials = tidy(import_table(TABLE, HOW), metric=HOW.metric)
    assert len(trials.frame) == 4
    row = trials.frame[trials.frame["architecture"] == "ViT-L-14"].sort_values("error").iloc[0]
    assert (row["error"], row["train_flops"], row["epochs"]) == pytest.approx((0.4, 4.8e20, 2.5))
    assert set(trials.frame["images"]) == {50_000}


def test_a_lower_better_metric_is_turned() -> None:
    errors = TABLE.assign(acc=100 - TABLE["acc"])
    turned = import_table(errors, replace(HOW, better="lower"))
    np.testing.assert_allclose(turned["imagenet/top1"], import_table(TABLE, HOW)["imagenet/top1"])


def test_a_loss_stays_as_it_is() -> None:
    how = replace(HOW, metric="text/loss", better="lower", images=0, metric_column=Column(source="acc"))
    trials = tidy(import_table(TABLE, how), metric="text/loss")
    assert sorted(trials.frame["error"]) == [40, 45, 50, 60]


def test_what_is_not_finite_and_what_stands_twice_is_excluded_and_counted() -> None:
    table = pd.concat([TABLE, TABLE.iloc[[0]]], ignore_index=True)
    table.loc[1, "gmacs"] = np.nan
    table.loc[2, "acc"] = np.inf
    trials = tidy(import_table(table, HOW), metric=HOW.metric)
    assert len(trials.frame) == 2
    assert sorted(trials.excluded["reason"]) == [
        "failed: the same row stands in the table twice",
        "failed: train_flops is not a finite number above zero",
        "the metric imagenet/top1 is not a finite number",
    ]


def test_two_different_values_of_one_cell_and_seed_are_refused() -> None:
    table = pd.concat([TABLE, TABLE.iloc[[0]].assign(acc=41.0)])
    with pytest.raises(ValueError, match="share a cell and a seed"):
        tidy(import_table(table, HOW), metric=HOW.metric)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            replace(HOW, metric_column=Column(source="accuracy")),
            "column 'accuracy'; did you mean 'acc'",
        ),
        (replace(HOW, rows={"task": ("imagenet1k",)}), "no row has task imagenet1k; there: cifar, imagenet"),
        (replace(HOW, columns={**HOW.columns, "sead": Column(value="0")}), "did you mean 'seed'"),
        (replace(HOW, columns={}), "the column map lacks 'regime'; needed: regime, subset_size"),
        (
            replace(HOW, columns={**HOW.columns, "samples_seen": Column(source="net")}),
            "'net' must hold numbers for samples_seen",
        ),
        (
            replace(HOW, columns={**HOW.columns, "architecture": Column(source="net", names={"B/32": "b"})}),
            "unknown architecture of the map 'L/14'",
        ),
    ],
)
def test_a_wrong_map_or_table_gets_one_clear_answer(how: ColumnMap, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        import_table(TABLE, how)
