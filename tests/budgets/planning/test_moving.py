"""Learning rates that move with level or size, and their check at a larger level."""

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from budgets.declaration.declaration import Declaration
from budgets.declaration.marked_file import DeclaredKeyError
from budgets.declaration.recipe import Recipe
from budgets.declaration.sections import GridBlock, Training, Tuning
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.tuning_plan import tuning_notes
from budgets.planning.winner import Optimum, RateLine, Score, find_optimum
from tests.budgets.plans import GFLOP, LADDER, declare, plan_of, tuning_of

RATES = (1e-3, 2e-3, 4e-3)
LEVELS = (100 * GFLOP, 200 * GFLOP, 400 * GFLOP)


def declared(*, architectures: tuple[str, ...] = LADDER[:1], **tuning: object) -> Declaration:
    values = {"share": 0.4, "fields": {"lr_peak": RATES}} | tuning
    return declare(
        GridBlock(architectures=architectures), study_flops=20_000 * GFLOP, levels=LEVELS,
        tuning=Tuning(**values), training=Training(lr_peak={}),  # type: ignore[arg-type]
    )  # fmt: skip


def tuned(declaration: Declaration, best: Callable[[Trial], float], *, noise: float = 0.002) -> Plan:
    """Tune until every rate is known, with scores that fall with the distance to the best rate of a trial."""
    scores: dict[str, Score] = {}
    while tuning_of(plan := plan_of(declaration, scores=scores)).waiting:
        for trial in tuning_of(plan).trials:
            off = math.log(trial.lr_peak / best(trial))
            scores[trial.trial_id] = Score(value=0.5 - 0.05 * off**2, standard_error=noise)
    return plan


def rates(plan: Plan) -> dict[tuple[str, int | None], float]:
    return {(trial.cell.architecture, trial.cell.level_flops): trial.lr_peak for trial in plan.trials}


def test_optimum_is_the_vertex_of_a_parabola_and_as_wide_as_the_noise() -> None:
    logs = [math.log(rate) for rate in RATES]
    scores = [0.5 - 0.05 * (log - math.log(1.7e-3)) ** 2 for log in logs]

    sharp, blurred = (find_optimum(RATES, scores, [noise] * 3) for noise in (1e-4, 0.5))

    assert math.exp(sharp.middle) == pytest.approx(1.7e-3)
    # With rises d and e towards the middle, the vertex lies at h/2·(d − e)/(d + e) from it.
    d, e = scores[1] - scores[0], scores[1] - scores[2]
    slopes = math.log(2) / (d + e) ** 2 * math.hypot(e, d, d - e)
    assert sharp.deviation == pytest.approx(1e-4 * slopes, rel=1e-3)
    assert blurred.deviation == pytest.approx(2 * math.log(2) / math.sqrt(12))
    edge = find_optimum(RATES, [0.3, 0.2, 0.1], [1e-4] * 3)
    assert (math.exp(edge.middle), edge.deviation) == pytest.approx((1e-3, math.log(2) / math.sqrt(3)))


def test_line_is_exact_at_its_ends_and_widens_beyond_them() -> None:
    line = RateLine(
        flops=(1e9, 4e9), optima=(Optimum(middle=math.log(4e-3), deviation=0.1),
                                   Optimum(middle=math.log(2e-3), deviation=0.1))
    )  # fmt: skip

    assert line.slope()[0] == pytest.approx(-0.5)
    assert [line.at(flops)[0] for flops in (1e9, 4e9, 16e9)] == pytest.approx([4e-3, 2e-3, 1e-3])
    rate, low, high = line.at(16e9)
    # At twice the distance: −1 times one optimum and 2 times the other.
    assert high / rate == pytest.approx(rate / low, rel=1e-3)
    assert math.log(high / rate) == pytest.approx(1.645 * 0.1 * math.sqrt(5), rel=1e-2)


def test_rate_tuned_at_two_levels_is_carried_on_to_the_third() -> None:
    declaration = declared(levels=LEVELS[:2])
    first = plan_of(declaration)
    assert {trial.cell.level_flops for trial in tuning_of(first).trials} == set(LEVELS[:2])
    assert tuning_of(first).waiting == ((LADDER[0], "clip"),)

    plan = tuned(declaration, lambda trial: 2.2e-3 * (trial.train_flops / 1e11) ** -0.25)

    of = {level: rate for (_, level), rate in rates(plan).items()}
    assert of[LEVELS[0]] == pytest.approx(2.2e-3, rel=0.01)
    assert of[LEVELS[1]] == pytest.approx(2.2e-3 * 2**-0.25, rel=0.01)
    assert of[LEVELS[2]] == pytest.approx(2.2e-3 * 4**-0.25, rel=0.01)
    (line,) = tuning_of(plan).carried
    assert line.exponent == pytest.approx(-0.25, abs=0.01)
    assert line.low < line.exponent < line.high
    assert [rate.tuned for rate in line.rates] == [True, True, False]
    assert len(tuning_of(plan).winners) == 2


def test_rates_tuned_for_two_sizes_are_carried_on_in_their_family_alone() -> None:
    ladder = ("mini-ViT-XXS-8", "mini-ViT-S-8", "mini-ViT-M-8", "mini-ConvNeXt")
    declaration = declared(architectures=ladder, sizes=("mini-ViT-XXS-8", "mini-ViT-S-8"))

    plan = tuned(declaration, lambda trial: 4e-3 * (trial.train_flops_per_sample / 1e7) ** -0.4)

    assert {trial.cell.architecture for trial in tuning_of(plan).trials} == {
        "mini-ViT-XXS-8", "mini-ViT-S-8", "mini-ConvNeXt"
    }  # fmt: skip
    (line,) = tuning_of(plan).carried
    assert [rate.architecture for rate in line.rates] == list(ladder[:3])
    sizes = {trial.cell.architecture: trial.train_flops_per_sample for trial in plan.trials}
    of = {name: rate for (name, level), rate in rates(plan).items() if level == LEVELS[2]}
    assert of["mini-ViT-M-8"] == pytest.approx(4e-3 * (sizes["mini-ViT-M-8"] / 1e7) ** -0.4, rel=0.02)
    assert of["mini-ConvNeXt"] in {*RATES, 8e-3, 5e-4}, "another family has a rate of its own"


def test_check_tries_neighbours_at_the_largest_level_that_its_own_share_pays_for() -> None:
    declaration = declared(check=0.061)  # three trials at the largest level cost 6 % of the study budget

    first = plan_of(declaration)
    still = tuned(declaration, lambda _: 2e-3)
    moved = tuned(declaration, lambda trial: 2e-3 if trial.cell.level_flops == LEVELS[0] else 1e-3)

    for plan in (first, still, moved):
        near = tuning_of(plan).neighbours
        assert [trial.lr_peak for trial in near] == [1e-3, 2e-3, 4e-3]
        assert {trial.cell.level_flops for trial in near} == {LEVELS[2]}
        assert sum(trial.train_flops for trial in near) <= tuning_of(plan).check_flops == 1220 * GFLOP
        assert tuning_of(plan).reserve_flops == 8000 * GFLOP
        assert plan.train_flops == sum(t.train_flops for t in (*tuning_of(plan).trials, *near, *plan.trials))
        assert set(rates(plan).values()) == {2e-3}, "a check changes no rate"
    assert (tuning_of(first).ready, tuning_of(first).waiting) == (
        tuning_of(first).trials,
        ((LADDER[0], "clip"),),
    )
    assert tuning_of(still).ready == (*tuning_of(still).trials, *tuning_of(still).neighbours)


def tuned_and_checked(declaration: Declaration, best: Callable[[Trial], float]) -> Plan:
    plan, scores = tuned(declaration, best), dict[str, Score]()
    assert tuning_of(plan).unfinished
    for trial in tuning_of(plan).ready:
        off = math.log(trial.lr_peak / best(trial))
        scores[trial.trial_id] = Score(value=0.5 - 0.05 * off**2 if off < 1 else None, standard_error=0.002)
    plan = plan_of(declaration, scores=scores)
    assert not tuning_of(plan).unfinished
    return plan


@pytest.mark.parametrize(
    ("best_at_top", "finding"),
    [
        (2e-3, ""),
        (1e-3, "lr_peak 0.001 (50.0 %) is better than the tuned 0.002 (47.6 %)"),
        (5e-4, "lr_peak 0.001 (47.6 %) is better than the tuned 0.002 (diverged)"),
        (1e-4, "training diverged at the tuned rate 0.002 and both neighbours"),
    ],
)
def test_check_says_where_the_tuned_rate_is_no_longer_the_best(best_at_top: float, finding: str) -> None:
    plan = tuned_and_checked(
        declared(check=0.1), lambda trial: 2e-3 if trial.cell.level_flops == LEVELS[0] else best_at_top
    )

    assert [check.moved for check in tuning_of(plan).checks] == [bool(finding)]
    notes = [note for note in tuning_notes(tuning_of(plan), reported="held-out/top1") if "larger" in note]
    assert [note.partition(" at 400 GFLOP: ")[2] for note in notes] == (
        [f"{finding}; tune at two levels or sizes"] if finding else []
    )


def test_check_leaves_out_the_neighbours_that_do_not_fit_its_share_and_says_so_once() -> None:
    # Three trials at 200 and 400 GFLOP cost 3 and 6 % of the study budget, for each of three architectures.
    names = [f"{name} with clip" for name in LADDER]
    for share, checked, level, left_out in (
        (0.19, names, LEVELS[2], ""),
        (0.121, names, LEVELS[1], ""),
        (0.0601, names[:2], LEVELS[1], names[2]),
        (0.0299, (), None, ", ".join(names)),
    ):
        plan = tuned(declared(architectures=LADDER, check=share, share=0.3), lambda _: 2e-3)

        near = tuning_of(plan).neighbours
        assert list(dict.fromkeys(f"{t.cell.architecture} with clip" for t in near)) == [*checked]
        assert {trial.cell.level_flops for trial in near} == ({level} if level else set())
        assert sum(trial.train_flops for trial in near) <= tuning_of(plan).check_flops
        notes = [note for note in plan.warnings if note.startswith("tuned rates are not checked")]
        assert len(notes) == (1 if left_out else 0)
        for note in notes:
            assert f"larger level: {left_out}: tuning.check sets " in note
            assert re.search(r"at 200 GFLOP .*1\.798 TFLOP.* 9%$", note)


def test_check_keeps_the_other_tuned_fields_and_needs_a_larger_level() -> None:
    fields = {"lr_peak": RATES, "batch_size": (32.0, 64.0)}
    plan = tuned_and_checked(declared(check=0.1, fields=fields), lambda _: 2e-3)

    (winner,), (check,) = tuning_of(plan).winners, tuning_of(plan).checks
    assert check.winner is not None
    assert check.winner.values == winner.values
    assert {trial.batch_size for trial in tuning_of(plan).neighbours} == {winner.values["batch_size"]}

    plan = tuned(declared(check=0.1, levels=LEVELS[1:]), lambda _: 2e-3)
    assert tuning_of(plan).left_out == (f"{LADDER[0]} with clip: no cell above those used for tuning",)


def test_levels_with_rates_of_their_own_share_no_trunk_and_are_paid_in_full() -> None:
    recipe = Recipe(schedule="trunk", warmup_samples=640)
    declaration = declared(levels=LEVELS[:2], check=0.1)
    declaration = replace(declaration, training=replace(declaration.training, recipe=recipe))

    before = plan_of(declaration)
    plan = tuned(declaration, lambda trial: 2e13 / trial.train_flops**0.5 * 1e-10)

    for planned in (before, plan):
        trials = planned.all_trials
        assert {trial.previous for trial in trials} == {""}
        assert all(trial.paid_flops == trial.train_flops for trial in trials)
        assert planned.train_flops == sum(trial.train_flops for trial in trials)
        assert all(trial.recipe.cooldown_steps(trial.steps) > 0 for trial in trials)
        assert any("levels share no trunk" in warning for warning in planned.warnings)
    assert len(set(rates(plan).values())) == 3


def test_one_architecture_decides_all_values_of_its_family() -> None:
    ladder = (*LADDER, "mini-ConvNeXt")
    fields = {"lr_peak": RATES, "batch_size": (32.0, 64.0)}
    declaration = declared(architectures=ladder, sizes=(LADDER[1], "mini-ConvNeXt"), fields=fields)

    plan = tuned(declaration, lambda trial: 2e-3 if trial.cell.architecture == "mini-ConvNeXt" else 1e-3)

    assert {trial.cell.architecture for trial in tuning_of(plan).trials} == {LADDER[1], "mini-ConvNeXt"}
    of_family, alone = tuning_of(plan).winners
    assert (of_family.architecture, of_family.serves) == (LADDER[1], (LADDER[0], LADDER[2]))
    assert alone.serves == ()
    settings = {(t.cell.architecture, t.lr_peak, t.batch_size) for t in plan.trials}
    served = {(name, 1e-3, of_family.values["batch_size"]) for name in LADDER}
    assert settings == {*served, ("mini-ConvNeXt", 2e-3, alone.values["batch_size"])}


@pytest.mark.parametrize(
    ("sizes", "fields", "advice"),
    [(LADDER, {"lr_peak": RATES}, "name one or two of it"),
     (LADDER[:2], {"beta2": (0.9, 0.98)}, "name one of it, or tune lr_peak alone")],
)  # fmt: skip
def test_sizes_that_no_line_joins_are_refused(
    sizes: tuple[str, ...], fields: dict[str, tuple[float, ...]], advice: str
) -> None:
    rated = replace(declared(architectures=LADDER), training=Training(lr_peak=dict.fromkeys(LADDER, 1e-3)))
    tuning = Tuning(share=0.4, fields=fields, sizes=sizes)
    with pytest.raises(DeclaredKeyError, match=rf"{sizes[-1]} are of one family \(ViT\): {advice}"):
        plan_of(replace(rated, tuning=tuning))


def test_line_without_a_result_above_chance_at_one_end_takes_the_rate_of_the_other() -> None:
    declaration = declared(levels=LEVELS[:2])
    values = {LEVELS[0]: 0.01, LEVELS[1]: 0.4}
    scores = {
        trial.trial_id: Score(value=values[trial.cell.level_flops or 0] - abs(trial.lr_peak - 2e-3))
        for trial in tuning_of(plan_of(declaration)).trials
    }

    plan = plan_of(declaration, scores=scores, choices=100)

    assert (tuning_of(plan).waiting, tuning_of(plan).carried) == ((), ())
    assert set(rates(plan).values()) == {2e-3}
    (note,) = tuning_of(plan).at_chance
    assert re.search(r"3 results at 100 GFLOP are at chance .* others beat chance at 200 GFLOP", note)


def test_a_rate_with_a_cell_above_is_not_said_to_have_none() -> None:
    blocks = (
        GridBlock(architectures=LADDER[:1]),
        GridBlock(architectures=LADDER[1:2], levels=(LEVELS[0], LEVELS[2])),
    )
    declaration = replace(declared(check=0.05), grid=blocks)  # a trial of each at 400 GFLOP costs 2.4 TFLOP
    plan = tuned(declaration, lambda _: 2e-3)

    assert {check.cell.architecture for check in tuning_of(plan).checks} <= {LADDER[0]}
    (note,) = tuning_of(plan).left_out
    assert re.match(rf"{LADDER[1]} with clip: tuning\.check .*1 TFLOP", note)
    assert note.endswith(" 12%")


def test_a_trial_of_check_and_grid_costs_what_the_check_pays() -> None:
    training = Training(lr_peak={}, recipe=Recipe(schedule="trunk", warmup_samples=640))
    plan = tuned(replace(declared(check=0.1, seeds=(0,)), training=training), lambda _: 2e-3)

    grid = {trial.trial_id: trial for trial in plan.trials}
    (both,) = [trial for trial in tuning_of(plan).neighbours if trial.trial_id in grid]
    assert grid[both.trial_id].paid_flops < both.paid_flops == both.train_flops
    paid = {
        trial.trial_id: trial.paid_flops for trial in (*tuning_of(plan).trials, *tuning_of(plan).neighbours)
    }
    assert plan.train_flops == sum({**{t.trial_id: t.paid_flops for t in plan.trials}, **paid}.values())
