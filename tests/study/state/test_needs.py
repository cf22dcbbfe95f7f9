"""Resources and settings of each trial where rules differ."""

from math import ceil
from pathlib import Path

import pytest

from budgets.planning.plan import Plan
from budgets.planning.scoring import score_flops
from runners.embedded.embedded_pool import scorer
from study.state.plan_study import plan_study
from study.state.study import Study, needs, trial_job
from tests.study.tiny_study import edit, study_of

RULED = """
study: ruled
pool: {embedded: {pairs: 1024}}
budget: {levels: [2 GFLOP, 4 GFLOP]}
grid: [{architectures: [mini-ViT-XXS-8]}]
training: {batch_size: 16, lr_peak: {mini-ViT-XXS-8: 2e-3}}
limits: {min_steps: 1}
resources:
  checkpoint: 7 s
  loader_memory: 500 MB
  custom: {licence: 2}
  rules:
    - {gpus: 1, cpus: 3}
    - {levels: 4 GFLOP, gpus: 4, cpus: 8, nodes: 2, accumulation: 2}
"""


def ruled(folder: Path, *changes: tuple[str, str]) -> Study:
    (folder / "ruled.yaml").write_text(RULED, encoding="utf-8")
    edit(folder / "ruled.yaml", *changes)
    return study_of(folder / "ruled.yaml")


def test_each_trial_occupies_what_its_rules_say(tmp_path: Path) -> None:
    study = ruled(tmp_path)

    narrow, wide = plan_study(study).trials

    assert needs(study, narrow) == {"cpus": 3, "gpus": 1, "licence": 2}
    assert needs(study, wide) == {"cpus": 4, "gpus": 2, "licence": 1}
    first, second = trial_job(study, narrow), trial_job(study, wide)
    assert (first.cpus, first.gpus, first.ranks, first.checkpoint_s) == (3, 1, 1, 7)
    assert (second.cpus, second.gpus, second.ranks, second.checkpoint_s) == (4, 2, 2, 7)
    assert first.loader_bytes == second.loader_bytes == 500 * 10**6
    assert (first.trial.recipe.accumulation, second.trial.recipe.accumulation) == (1, 2)


def test_scores_are_paid_once_if_the_budget_counts_them_and_only_those_that_are_used(tmp_path: Path) -> None:
    again, other = "{embedded: {pairs: 1024}}", "{embedded: {pairs: 1024, seed: 3}}"

    def plan(rest: str, quality: str = "top20", counted: str = "true") -> Plan:
        mixture = f"{{m: {{good: {{quality: top10, weight: 1}}, rest: {{quality: {quality}, weight: 1}}}}}}"
        pools = f"pools: {{good: {again}, rest: {rest}}}\nmixtures: {mixture}"
        budget = ("4 GFLOP]}", f"4 GFLOP], study: 1 TFLOP, count_scoring: {counted}}}")
        return plan_study(ruled(tmp_path, (f"pool: {again}", pools), budget))

    paid = scorer(1024)
    trained, scored = paid.train_flops, paid.scoring_flops
    one, two = plan(again), plan(other)
    assert [charge.flops for charge in one.charges] == [trained, scored]
    assert [charge.flops for charge in two.charges] == [trained, scored, scored], "the model is trained once"
    assert two.charges[2].what.endswith("-1024-seed3")
    assert two.train_flops == sum(trial.paid_flops for trial in two.trials) + trained + 2 * scored
    assert [charge.flops for charge in plan(other, quality="all").charges] == [trained, scored]

    outside = plan(other, counted="false")
    assert outside.charges == ()
    assert score_flops(outside.score_costs["mixture:m"]) == trained + 2 * scored
    edit(tmp_path / "ruled.yaml", ("1 TFLOP, count_scoring: false", "500 GFLOP, count_scoring: true"))
    with pytest.raises(ValueError, match=r"GFLOP of charges\), but the study budget is 500 GFLOP: .* over"):
        plan_study(study_of(tmp_path / "ruled.yaml"))


def test_evaluations_on_the_way_are_paid_as_often_as_they_run(tmp_path: Path) -> None:
    at = "evaluation: {at: [1%, 2%, 50%, 99.99%]}\n"
    for trial in plan_study(ruled(tmp_path, ("training:", f"{at}training:"))).trials:
        assert trial.steps < 10_000
        on_the_way = {ceil(share * trial.steps) for share in (0.01, 0.02, 0.5)}
        assert trial.evaluations == 1 + len(on_the_way), "99.99 % is the end"
        assert trial.evaluation_flops == trial.evaluations * trial.flops_per_evaluation
