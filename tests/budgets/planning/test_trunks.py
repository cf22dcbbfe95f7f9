"""A plan with trunks: what each trial shares, what it costs, and what a study budget buys."""

from dataclasses import replace

import pytest

from budgets.declaration.recipe import Recipe
from budgets.declaration.sections import Cluster, GridBlock, Ladder, Resources, Training, Tuning
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import trunk_id
from budgets.planning.price import price_plan
from tests.budgets.plans import GFLOP, LADDER, declare, plan_of

TRUNK = Recipe(schedule="trunk", warmup_samples=640, cooldown=0.2)


def plan_with(recipe: Recipe, *blocks: GridBlock, **changes: object) -> Plan:
    training = Training(lr_peak=dict.fromkeys(LADDER, 1e-3), recipe=recipe)
    blocks = blocks or (GridBlock(architectures=LADDER[:1]),)
    return plan_of(declare(*blocks, training=training, **changes))


def test_levels_of_a_curve_and_seed_share_their_steps_before_each_cooldown() -> None:
    plan = plan_with(TRUNK, levels=(100 * GFLOP, 200 * GFLOP, 400 * GFLOP), seeds=(0, 1))

    for seed in (0, 1):
        low, middle, high = (trial for trial in plan.trials if trial.seed == seed)
        assert (low.previous, low.shared_samples) == ("", 0)
        assert (middle.previous, high.previous) == (low.trial_id, middle.trial_id)
        assert middle.shared_samples == (low.steps - round(0.2 * low.steps)) * low.batch_size
        assert low.paid_flops == low.train_flops
        for trial in (middle, high):
            added = trial.samples_seen - trial.shared_samples
            assert trial.paid_flops == added * trial.train_flops_per_sample
    assert plan.train_flops == sum(trial.paid_flops for trial in plan.trials)
    # 400 + .2 (100 + 200) of 700 GFLOP a seed.
    assert plan.train_flops == pytest.approx(2 * 460 * GFLOP, rel=2e-3)


def test_an_unmasked_tail_longer_than_the_cooldown_is_part_of_the_branch() -> None:
    recipe = Recipe(schedule="trunk", warmup_samples=640, cooldown=0.1, unmasked_tail=0.25)
    plan = plan_with(recipe, GridBlock(architectures=LADDER[:1], strategies=("clip", "flip-50")))

    milestones = {trial.cell.strategy: trial.milestone_step / trial.steps for trial in plan.trials}
    assert milestones["clip"] == pytest.approx(0.9, abs=0.01)
    assert milestones["flip-50"] == pytest.approx(0.75, abs=0.01)
    low, high = (trial for trial in plan.trials if trial.cell.strategy == "flip-50")
    assert high.shared_samples == low.milestone_step * low.batch_size
    assert high.paid_flops == high.train_flops - high.shared_samples * high.train_flops_per_sample


def test_each_trial_of_an_evaluated_trunk_ends_where_its_branch_begins_and_both_cost_no_more() -> None:
    levels = (100 * GFLOP, 200 * GFLOP, 400 * GFLOP)
    facts = {"levels": levels, "resources": Resources(auto=True), "cluster": Cluster(device="H100", count=2)}
    evaluated, plain = (
        plan_with(TRUNK, evaluate_trunk=trunk, seeds=(0, 1), **facts) for trunk in (True, False)
    )

    assert [trial.trial_id for trial in evaluated.trials[1::2]] == [trial.trial_id for trial in plain.trials]
    assert evaluated.train_flops == plain.train_flops
    assert evaluated.chosen.keys() == {trial.trial_id for trial in evaluated.trials}
    for seed in (0, 1):
        trials = [trial for trial in evaluated.trials if trial.seed == seed]
        trunks, branches = trials[::2], trials[1::2]
        assert len({trunk_id(trial) for trial in trials}) == 1
        assert [trial.previous for trial in trunks] == ["", *(trial.trial_id for trial in trunks[:-1])]
        for trunk, branch in zip(trunks, branches, strict=True):
            assert trunk.of_trunk
            assert trunk.cell == branch.cell
            assert trunk.steps == trunk.milestone_step == branch.milestone_step
            assert branch.previous == trunk.trial_id
            assert branch.paid_flops == branch.train_flops - trunk.train_flops
            assert (trunk.keeps_milestone, branch.keeps_milestone) == (True, False)
            assert trunk.evaluation_flops == 2 * branch.evaluation_flops
            assert trunk.seed_words == f"seed {seed}, trunk"


@pytest.mark.parametrize("evaluated", [False, True])
def test_levels_whose_cooldowns_begin_at_the_same_step_share_a_milestone(*, evaluated: bool) -> None:
    step = plan_with(TRUNK).trials[0].train_flops_per_sample * 64
    levels = (42 * step, 43 * step, 126 * step)
    cluster = Cluster(device="H100", count=2)
    plan = plan_with(TRUNK, levels=levels, evaluate_trunk=evaluated, cluster=cluster)

    low, same, high = (trial for trial in plan.trials if not trial.of_trunk)
    assert low.milestone_step == same.milestone_step == 34
    assert [trial.keeps_milestone for trial in (low, same)] == [not evaluated, False]
    assert same.previous == (low.previous if evaluated else low.trial_id)
    assert high.previous == (plan.trials[-2] if evaluated else low).trial_id
    assert plan.train_flops == (42 + 9 + 126 - 34) * step
    assert price_plan(plan, cluster).makespan_hours.high > 0


def test_a_trunk_goes_on_from_a_level_too_short_for_a_cooldown() -> None:
    recipe = replace(TRUNK, cooldown=0.01)
    step = plan_with(recipe).trials[0].train_flops_per_sample * 64
    plan = plan_with(recipe, levels=(42 * step, 200 * step), evaluate_trunk=True)

    short, trunk, branch = plan.trials
    assert short.milestone_step == short.steps
    assert [trunk.previous, branch.previous] == [short.trial_id, trunk.trial_id]
    assert plan.train_flops == 200 * step


def test_a_trunk_that_shares_no_steps_or_can_t_be_evaluated_is_refused() -> None:
    one_epoch = GridBlock(architectures=LADDER[:1], regime="one-epoch")
    with pytest.raises(ValueError, match=r"clipa-resize: before its tail it trains on smaller images"):
        plan_with(
            TRUNK, GridBlock(architectures=LADDER[:1], strategies=("clipa-resize",)), evaluate_trunk=True
        )
    tuning = Tuning(share=0.1, fields={"lr_peak": (1e-3, 2e-3)}, levels=(100 * GFLOP, 300 * GFLOP))
    training = Training(lr_peak={LADDER[0]: 1e-3}, recipe=TRUNK)
    for changes, why in (
        ({"grid": (one_epoch,)}, "needs regime: fixed-compute, found one-epoch"),
        ({"tuning": tuning}, "is not allowed with tuning.levels"),
        ({"training": Training(lr_peak={LADDER[0]: 1e-3})}, "needs training.schedule: trunk, found cosine"),
    ):
        declared = declare(**{"training": training, "evaluate_trunk": True} | changes)
        problems = dict(declared.clashes(lambda _key: True))
        assert why in problems["evaluation.trunk"]


def test_trials_that_train_differently_share_no_trunk() -> None:
    blocks = (
        GridBlock(architectures=LADDER[:2], sizes=(1_000, 2_000), levels=(100 * GFLOP,)),
        GridBlock(architectures=LADDER[:2], strategies=("slip",), levels=(300 * GFLOP,)),
    )
    assert all(not trial.previous for trial in plan_with(TRUNK, *blocks).trials)
    constant = Recipe(schedule="constant-with-cooldown", warmup_samples=640)
    assert all(not trial.previous for trial in plan_with(constant).trials)


def test_a_ladder_of_eight_levels_at_root_three_costs_54_percent_of_its_runs_alone() -> None:
    plan = plan_with(TRUNK, levels=(), study_flops=10_000 * GFLOP, ladder=Ladder(levels=8, ratio=3**0.5))

    assert len(plan.levels) == 8
    assert 9_900 * GFLOP < plan.train_flops <= 10_000 * GFLOP
    alone = sum(trial.train_flops for trial in plan.trials)
    assert plan.train_flops / alone == pytest.approx(0.542, abs=0.002)


def test_trials_dropped_from_a_trunk_save_what_they_add_to_it() -> None:
    levels = (100 * GFLOP, 200 * GFLOP, 400 * GFLOP)
    # 2 seeds cost 920 GFLOP; without the second seed's top level 400 - 160 GFLOP less.
    plan = plan_with(TRUNK, levels=levels, seeds=(0, 1), study_flops=700 * GFLOP, fit="drop")

    low, middle, top = levels
    planned = [(trial.seed, trial.cell.level_flops) for trial in plan.trials]
    assert planned == [(0, low), (1, low), (0, middle), (1, middle), (0, top)]
    assert plan.train_flops == pytest.approx(680 * GFLOP, rel=2e-3)


def test_a_level_dropped_below_a_trial_without_level_saves_only_its_cooldown() -> None:
    levels = (100 * GFLOP, 200 * GFLOP, 400 * GFLOP)
    blocks = [
        GridBlock(architectures=LADDER[:1], sizes=(60_000,), regime=regime)
        for regime in ("fixed-compute", "one-epoch")
    ]

    def within(cap: int, *seeds: int) -> Plan:
        training = Training(lr_peak=dict.fromkeys(LADDER, 1e-3), recipe=TRUNK)
        budget = {"levels": levels, "seeds": seeds, "study_flops": cap * GFLOP, "fit": "drop"}
        return plan_of(declare(*blocks, training=training, **budget), pairs=60_000)

    # One epoch costs 421 GFLOP, and the cooldown of each level a fifth of it: 561 GFLOP in all.
    assert within(562, 0).train_flops == pytest.approx(561 * GFLOP, rel=2e-3)
    one, two = within(490, 0), within(1_050, 0, 1)
    assert one.train_flops == pytest.approx(481 * GFLOP, rel=2e-3)
    assert "all trials at 400 GFLOP (1 trial, 79.9" in one.warnings[0]
    assert two.train_flops == pytest.approx((561 + 460) * GFLOP, rel=2e-3)
    assert "1 extra seed at 420.8 GFLOP (1 trial, 101 GFLOP)" in two.warnings[0]
    with pytest.raises(ValueError, match="is not enough"):
        within(400, 0)
