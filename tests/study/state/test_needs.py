"""Resources and settings of each trial where rules differ."""

from pathlib import Path

from study.declare.load import load_declaration
from study.state.jobs import needs, trial_job
from study.state.planning.plan_study import plan_study
from study.state.study import find_study

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
