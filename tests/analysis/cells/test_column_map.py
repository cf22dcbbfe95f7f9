"""Import of any table through a column map."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.belief.cell_draws import cell_draws
from analysis.belief.family import families
from analysis.cells.imported_table import Column, ColumnMap, import_table, unselected
from analysis.cells.table import tidy
from analysis.labels import count_text, metric_text, sort_key
from analysis.laws.best_size import profiles

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
LOSS = replace(HOW, metric="text/loss", better="lower", images=0, metric_column=Column(source="acc"))


def with_columns(**columns: Column) -> ColumnMap:
    """Return the map with other columns."""
    return replace(HOW, columns={**HOW.columns, **columns})


def test_rows_are_chosen_names_translated_and_flops_multiplied_out() -> None:
    trials = tidy(import_table(TABLE, HOW), metric=HOW.metric)
    assert len(trials.frame) == 4
    row = trials.frame[trials.frame["architecture"] == "ViT-L-14"].sort_values("error").iloc[0]
    assert (row["error"], row["train_flops"], row["epochs"]) == pytest.approx((0.4, 4.8e20, 2.5))
    assert set(trials.frame["images"]) == {50_000}


def test_a_fraction_that_is_better_when_lower_becomes_one_minus_itself() -> None:
    errors = TABLE.assign(acc=100 - TABLE["acc"])
    turned = import_table(errors, replace(HOW, better="lower"))
    np.testing.assert_allclose(turned["imagenet/top1"], import_table(TABLE, HOW)["imagenet/top1"])


def test_a_loss_stays_as_it_is() -> None:
    trials = tidy(import_table(TABLE, LOSS), metric="text/loss")
    assert sorted(trials.frame["error"]) == [40, 45, 50, 60]


def test_rows_that_are_not_finite_or_duplicated_are_excluded_and_counted() -> None:
    table = pd.concat([TABLE, TABLE.iloc[[0]]], ignore_index=True)
    table.loc[1, "gmacs"] = np.nan
    table.loc[2, "acc"] = np.inf
    trials = tidy(import_table(table, HOW), metric=HOW.metric)
    assert len(trials.frame) == 2
    assert sorted(trials.excluded["reason"]) == [
        "failed: duplicate of an earlier row",
        "failed: train_flops is not a finite number above zero",
        "the metric imagenet/top1 is not a finite number",
    ]


def test_two_different_values_of_one_cell_and_seed_are_refused() -> None:
    twins = TABLE.iloc[[1, 0]].assign(acc=41.0)  # two pairs of them
    table = pd.concat([TABLE, twins], ignore_index=True)
    with pytest.raises(
        ValueError,
        match=r"'row 1' and 'row 7' .*; if they are runs of a sweep, name what they differ in under sweep:",
    ):
        tidy(import_table(table, HOW), metric=HOW.metric)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (replace(HOW, metric_column=Column(source="accuracy")), "column 'accuracy'; did you mean 'acc'"),
        (replace(HOW, rows={"task": ("imagenet1k",)}), "no row has task imagenet1k; found: cifar, imagenet"),
        (with_columns(samples_seen=Column(source="net")), "'net' must hold numbers for samples_seen"),
        (with_columns(architecture=Column(source="net", names={"B/32": "b"})),
         "unknown architecture of the map 'L/14'"),
        (replace(HOW, metric_column=Column(source="acc"), where={"metric": "mine.yaml:3"}),
         r"mine\.yaml:3: column 'acc', row 1: .* found 40; .*`times: 0\.01`$"),
        (replace(HOW, metric_column=Column(source="acc", times=100)), "found 4000$"),
        (replace(LOSS, metric_column=Column(source="acc", times=-1)), "row 1: text/loss .* found -40"),
        # In other units than the training FLOPs.
        (with_columns(regime=Column(value="fixed-compute"),
                      level_flops=Column(source="gmacs", times=6e-3, by="seen")),
         r"row 1: level_flops is .+ where train_flops is 3e\+18"),
        (with_columns(train_flops_per_sample=Column(source="gmacs", times=6e12)),
         r"row 1: train_flops_per_sample is .+ where train_flops is 3e\+18"),
    ],
)  # fmt: skip
def test_a_wrong_map_or_table_is_refused_with_the_column_row_or_value(how: ColumnMap, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        import_table(TABLE, how)


def test_numbers_as_names_and_booleans_are_texts() -> None:
    table = TABLE.assign(net=[400_000_000, 400_000_000, 1.4, 1.4, 0.0], ema=[True, False, True, False, True])
    how = with_columns(architecture=Column(source="net"), strategy=Column(source="ema"))
    frame = import_table(table, how)
    assert frame["architecture"].tolist() == ["400000000", "400000000", "1.4", "1.4"]
    assert frame["strategy"].tolist() == ["True", "False", "True", "False"]
    chosen = import_table(table, replace(how, rows={"ema": ("true",), "net": ("4e8", "1.4")}))
    assert chosen["trial"].tolist() == ["row-1", "row-3"]


def test_numbers_may_have_a_unit_in_the_table_and_in_the_map() -> None:
    table = TABLE.assign(seen=["100M", "1B", "1e8", "15T", "1"], acc=["40%", "50 %", "0.45", "0.6", "0"])
    how = with_columns(subset_size=Column(value="15T"))
    frame = import_table(table, replace(how, metric_column=Column(source="acc")))
    assert frame["samples_seen"].tolist() == [1e8, 1e9, 1e8, 1.5e13]
    assert frame["subset_size"].tolist() == [1.5e13] * 4
    assert frame[HOW.metric].tolist() == [0.4, 0.5, 0.45, 0.6]


def test_images_and_reading_error_may_be_columns_and_enter_the_noise() -> None:
    table = TABLE.assign(n=[10_000.0, 10_000, 10_000, 10_000, 1], half=[0.0, 3.0, 0.0, 4.0, 0.0])
    how = replace(HOW, images=Column(source="n"), reading_error=Column(source="half", times=0.01))
    trials = tidy(import_table(table, how), metric=HOW.metric)
    assert trials.metric == HOW.metric
    draws = cell_draws(trials)
    assert sorted(draws.cells["reading_error"]) == [0.0, 0.0, 0.03, 0.04]
    (family,) = draws.families.values()
    p = family.measured.mean
    least = np.sqrt(p * (1 - p) / 1e4 + (0.03**2 + 0.04**2) / 4)
    np.testing.assert_allclose(np.sqrt(family.belief.noise), least, rtol=0.03)


@pytest.mark.parametrize(
    ("how", "what", "wrong"),
    [
        (replace(HOW, images=Column(source="n")), "number of images", [0.0, -5.0, np.nan, np.inf]),
        (replace(HOW, reading_error=Column(source="n")), "reading error", [-0.1, np.nan, np.inf]),
    ],
)
def test_a_row_without_a_proper_count_or_reading_error_is_named(
    how: ColumnMap, what: str, wrong: list[float]
) -> None:
    for number in wrong:
        shown = "none" if np.isnan(number) else f"{number:g}"
        message = rf"the {what} of row 3 must be [01] or more; found {shown}$"
        with pytest.raises(ValueError, match=message):
            import_table(TABLE.assign(n=[100.0, 100.0, number, 100.0, np.nan]), how)
    # A row that has no value needs none.
    failed = TABLE.assign(n=[100.0, 100.0, np.nan, 100.0, 100.0], acc=[40.0, 50.0, np.nan, 60.0, 1.0])
    assert len(tidy(import_table(failed, how), metric=HOW.metric).frame) == 3


def test_spaces_around_names_make_no_other_configuration() -> None:
    spaced = TABLE.assign(
        net=["B/32", " B/32 ", "L/14 ", "L/14", "other"],
        how=["clip", " clip", "clip ", "clip", ""],
        task=[" imagenet"] * 4 + ["cifar"],
    )
    how = with_columns(strategy=Column(source="how"))
    trials = tidy(import_table(spaced, how), metric=HOW.metric)
    assert set(trials.frame["architecture"]) == {"ViT-B-32", "ViT-L-14"}
    assert set(trials.frame["strategy"]) == {"clip"}


def test_a_reading_error_is_noise_of_a_loss_too() -> None:
    how = replace(LOSS, reading_error=Column(value="0.5"))
    for family in families(tidy(import_table(TABLE, how), metric="text/loss")).values():
        assert (family.belief.noise >= 0.5**2).all()


@pytest.mark.parametrize("regime", ["equal-samples", "one-epoch", "fixed-compute"])
def test_three_scales_of_whole_batches_stay_three_budgets(regime: str) -> None:
    """Import 15 runs at 200 GFLOP, 600 GFLOP and 1.8 TFLOP, rounded down to whole batches: 195.8 for 200."""
    kept = np.array([0.979, 0.985, 0.991, 0.997, 0.9995])
    scale = np.repeat([200e9, 600e9, 1.8e12], 5) * np.tile(kept, 3)
    table = pd.DataFrame({"net": [*"abcde"] * 3, "flops": scale, "seen": scale / 1e6, "acc": 0.5})
    columns = {
        "regime": Column(value=regime), "architecture": Column(source="net"),
        "strategy": Column(value="clip"), "quality": Column(value="all"),
        "samples_seen": Column(source="seen"),
        "subset_size": Column(source="seen"), "train_flops": Column(source="flops"),
    }  # fmt: skip
    how = replace(HOW, rows={}, columns=columns, metric_column=Column(source="acc"))
    trials = tidy(import_table(table, how), metric=HOW.metric)
    assert trials.frame["budget"].nunique() == 3
    assert trials.frame["train_flops"].nunique() == 15
    exact = replace(how, columns={**columns, "batch_size": Column(value="1")})
    assert tidy(import_table(table, exact), metric=HOW.metric).frame["budget"].nunique() == 15
    batches = replace(how, columns={**columns, "batch_size": Column(value="40_000")})
    assert tidy(import_table(table, batches), metric=HOW.metric).frame["budget"].nunique() == 3


def test_one_epoch_trials_of_a_level_share_their_pairs() -> None:
    how = with_columns(regime=Column(value="one-epoch"), subset_size=Column(source="seen"))
    frame = import_table(TABLE.assign(seen=[0.99e8, 0.98e9, 1e8, 1e9, 1.0]), how)
    assert frame["subset_size"].tolist() == [1e8, 1e9, 1e8, 1e9]
    assert frame["samples_seen"].tolist() == [0.99e8, 0.98e9, 1e8, 1e9]


def test_a_row_without_a_name_or_a_number_fails_with_the_reason() -> None:
    table = TABLE.assign(net=["", *TABLE["net"][1:]], seen=[1e8, 0.0, 1e8, 1e9, 1e9])
    frame = import_table(table, HOW)
    assert frame["reason"].tolist()[0] == "no architecture"
    assert frame["reason"].tolist()[1].startswith("train_flops is not")
    assert unselected(table, HOW)["trial"].tolist() == ["row-5"]


def test_sizes_as_names_are_one_family_in_the_order_of_their_size() -> None:
    names = sorted(["1125938688", "99620352", "1.4"], key=lambda name: sort_key("architecture", name))
    assert names == ["1.4", "99620352", "1125938688"]
    assert (count_text(999_970_000), metric_text("text/loss")) == ("1B", "loss (text)")


def test_sizes_at_three_budgets_without_levels_give_three_profiles_of_model_size() -> None:
    size, flops = (each.ravel() for each in np.meshgrid(np.geomspace(1e8, 6.4e9, 7), [1e20, 3e20, 9e20]))
    seen = flops / (6 * size) * np.tile([0.98, 0.99, 1.0], 7)  # whole batches
    table = pd.DataFrame({"n": size, "d": seen, "loss": 1.7 + 400 / size**0.34 + 410 / seen**0.28})
    columns = {
        "regime": Column(value="fixed-compute"), "architecture": Column(source="n"),
        "strategy": Column(value="language-model"), "quality": Column(value="all"),
        "subset_size": Column(value="15T"), "samples_seen": Column(source="d"),
        "train_flops": Column(source="n", times=6, by="d"),
    }  # fmt: skip
    how = replace(LOSS, rows={}, columns=columns, metric_column=Column(source="loss"))
    trials = tidy(import_table(table, how), metric="text/loss")
    found = profiles(cell_draws(trials))
    assert [len(each.positions) for each in found] == [7, 7, 7]
    assert [each.identity["family"] for each in found] == ["model"] * 3
    np.testing.assert_allclose([each.identity["budget"] for each in found], [1e20, 3e20, 9e20], rtol=0.03)


def test_a_model_of_no_parameters_has_an_unknown_number_of_them() -> None:
    table = TABLE.assign(size=[0.0, -1.0, 3e8, 3e8, 1.0])
    trials = tidy(import_table(table, with_columns(parameters=Column(source="size"))), metric=HOW.metric)
    assert sorted(trials.frame["parameters"].fillna(0.0)) == [0.0, 0.0, 3e8, 3e8]


def test_missing_epochs_and_flops_of_a_sample_follow_from_the_other_columns() -> None:
    table = TABLE.assign(epochs=[np.nan, 3.0, 0.0, 3.0, 3.0], cost=[3.1e10, np.nan, 4.9e11, np.inf, 1.0])
    how = with_columns(epochs=Column(source="epochs"), train_flops_per_sample=Column(source="cost"))
    found = import_table(table, how)
    assert found["epochs"].tolist() == [0.25, 3.0, 0.25, 3.0]
    assert found["train_flops_per_sample"].tolist() == pytest.approx([3.1e10, 3e10, 4.9e11, 4.8e11])


def test_a_row_without_a_regime_and_one_of_no_pairs_are_dropped() -> None:
    table = TABLE.assign(regime=["", *["one-epoch"] * 4])
    how = with_columns(regime=Column(source="regime"), subset_size=Column(source="seen"))
    found = import_table(table, how)
    assert found["reason"].iloc[0] == "no regime"
    assert tidy(found, metric=HOW.metric).excluded["reason"].tolist() == ["failed: no regime"]
    none = import_table(TABLE, with_columns(quality=Column(value="top0")))
    assert set(none["reason"]) == {"its quality keeps no pair"}


def test_rows_of_one_epoch_with_other_samples_than_pairs_are_dropped() -> None:
    table = TABLE.assign(pairs=[1e8, 2e8, 9e7, 1e9, 1e9])
    how = with_columns(regime=Column(value="one-epoch"), subset_size=Column(source="pairs"))
    found = import_table(table, how)
    assert found["status"].tolist() == ["finished", "failed", "failed", "finished"]
    assert set(found["reason"]) == {"", "one-epoch, but its samples_seen are not its subset_size"}

    in_batches = {**how.columns, "batch_size": Column(value="2e7")}
    found = import_table(table, replace(how, columns=in_batches))
    assert found["status"].tolist() == ["finished", "failed", "finished", "finished"], "within a batch"
