"""Resources and settings of each trial where rules differ."""

from math import ceil
from pathlib import Path

from budgets.planning.plan import Charge
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


def test_a_pool_with_two_names_is_scored_and_paid_once(tmp_path: Path) -> None:
    again, other = "{embedded: {pairs: 1024}}", "{embedded: {pairs: 1024, seed: 3}}"
    mixture = "mixtures: {m: {good: {quality: top10, weight: 1}, rest: {quality: all, weight: 1}}}"

    def charges(rest: str) -> tuple[Charge, ...]:
        pools = f"pools: {{good: {again}, rest: {rest}}}\n{mixture}"
        return plan_study(ruled(tmp_path, (f"pool: {again}", pools))).charges

    (charge,), two = charges(again), charges(other)
    paid = scorer(1024)
    assert (charge.train_flops, charge.evaluation_flops) == (paid.train_flops, paid.scoring_flops)
    assert [each.train_flops for each in two] == [charge.train_flops] * 2
    assert two[0].what == charge.what
    assert two[1].what.endswith("-1024-seed3")


def test_evaluations_on_the_way_are_paid_as_often_as_they_run(tmp_path: Path) -> None:
    at = "evaluation: {at: [1%, 2%, 50%, 99.99%]}\n"
    for trial in plan_study(ruled(tmp_path, ("training:", f"{at}training:"))).trials:
        assert trial.steps < 10_000
        on_the_way = {ceil(share * trial.steps) for share in (0.01, 0.02, 0.5)}
        assert trial.evaluations == 1 + len(on_the_way), "99.99 % is the end"
        assert trial.evaluation_flops == trial.evaluations * trial.flops_per_evaluation
