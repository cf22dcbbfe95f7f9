"""Resources and settings of each trial where rules differ."""

from math import ceil
from pathlib import Path

from runners.embedded.embedded_pool import scorer
from study.declare.load import load_declaration
from study.state.plan_study import plan_study
from study.state.study import find_study, needs, trial_job

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


def test_each_trial_occupies_what_its_rules_say(tmp_path: Path) -> None:
    path = tmp_path / "ruled.yaml"
    path.write_text(RULED, encoding="utf-8")
    study = find_study(load_declaration(path), results=str(tmp_path), pools=str(tmp_path))

    narrow, wide = plan_study(study).trials

    assert needs(study, narrow) == {"cpus": 3, "gpus": 1, "licence": 2}
    assert needs(study, wide) == {"cpus": 4, "gpus": 2, "licence": 1}
    first, second = trial_job(study, narrow), trial_job(study, wide)
    assert (first.cpus, first.gpus, first.ranks, first.checkpoint_s) == (3, 1, 1, 7)
    assert (second.cpus, second.gpus, second.ranks, second.checkpoint_s) == (4, 2, 2, 7)
    assert first.loader_bytes == second.loader_bytes == 500 * 10**6
    assert (first.trial.recipe.accumulation, second.trial.recipe.accumulation) == (1, 2)


def test_a_pool_with_two_names_is_scored_and_paid_once(tmp_path: Path) -> None:
    path = tmp_path / "ruled.yaml"
    twice = (
        "pools: {good: {embedded: {pairs: 1024}}, rest: {embedded: {pairs: 1024}}}\n"
        "mixtures: {m: {good: {quality: top10, weight: 1}, rest: {quality: all, weight: 1}}}"
    )
    path.write_text(RULED.replace("pool: {embedded: {pairs: 1024}}", twice), encoding="utf-8")
    study = find_study(load_declaration(path), results=str(tmp_path), pools=str(tmp_path))
    (charge,) = plan_study(study).charges
    assert (charge.train_flops, charge.evaluation_flops) == (
        scorer(1024).train_flops, scorer(1024).scoring_flops
    )  # fmt: skip

    other = twice.replace("rest: {embedded: {pairs: 1024}}", "rest: {embedded: {pairs: 1024, seed: 3}}")
    path.write_text(path.read_text(encoding="utf-8").replace(twice, other), encoding="utf-8")
    study = find_study(load_declaration(path), results=str(tmp_path), pools=str(tmp_path))
    two = plan_study(study).charges
    assert [each.train_flops for each in two] == [charge.train_flops] * 2
    assert two[0].what == charge.what
    assert two[1].what.endswith("-1024-seed3")


def test_evaluations_on_the_way_are_paid_as_often_as_they_run(tmp_path: Path) -> None:
    path = tmp_path / "ruled.yaml"
    path.write_text(f"{RULED}evaluation: {{at: [1%, 2%, 50%, 99.99%]}}\n", encoding="utf-8")
    study = find_study(load_declaration(path), results=str(tmp_path), pools=str(tmp_path))
    for trial in plan_study(study).trials:
        assert trial.steps < 10_000
        on_the_way = {ceil(share * trial.steps) for share in (0.01, 0.02, 0.5)}
        assert trial.evaluations == 1 + len(on_the_way), "99.99 % is the end"
        assert trial.evaluation_flops == trial.evaluations * trial.flops_per_evaluation
