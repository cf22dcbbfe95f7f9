"""A trial's id follows from its pairs: further scores of a pool leave the ids of other trials as they are."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from budgets.planning.scoring import score_charges
from budgets.quality import check_quality
from runners.data.build.rescore import set_column, set_score, use_score
from runners.data.pool.pool import Pool, Scorer, tree_name
from study.state.plan_study import plan_study
from tests.runners.data.indexed import column
from tests.study.conftest import Run
from tests.study.tiny_study import TinyStudy

pytestmark = pytest.mark.slow


@pytest.fixture
def scored(pool: Path, tmp_path: Path) -> Pool:
    return Pool.open(shutil.copytree(pool, tmp_path / "scored"))


def ids(pool: Path, folder: Path, *qualities: str) -> dict[str, str]:
    """Return the id of the trial of each quality."""
    study = TinyStudy(folder, pool).study
    (block,) = study.declaration.grid
    grid = (replace(block, quality=tuple(map(check_quality, qualities))),)
    plan = plan_study(replace(study, declaration=replace(study.declaration, grid=grid)))
    return {trial.cell.quality: trial.trial_id for trial in plan.trials}


def test_a_further_score_keeps_the_ids_of_trials_on_the_same_pairs(scored: Pool, tmp_path: Path) -> None:
    before = ids(scored.path, tmp_path, "all", "top50")
    other = np.random.default_rng(0).normal(size=scored.count).astype(np.float32)

    second = set_score(scored, other, Scorer(name="other"))

    after = ids(scored.path, tmp_path, "all", "top50", "top50 by similarity")
    assert after["all"] == before["all"]
    assert after["top50 by similarity"] == before["top50"]
    assert after["top50"] != before["top50"]
    assert second.unranked == scored.fingerprint
    assert {name: (score.fingerprint, score.pairs) for name, score in second.scores.items()} == {
        "similarity": (scored.fingerprint, scored.count),
        "other": (second.fingerprint, scored.count),
    }

    use_score(second, "similarity")
    assert ids(scored.path, tmp_path, "all", "top50") == before
    assert ids(scored.path, tmp_path, "top50 by other")["top50 by other"] == after["top50"]
    # Copies in a bucket differ, because the second lacks a column that trials need.
    names = {tree_name(scored.path, "declared"), "declared", scored.fingerprint}
    assert len(names) == 3


def test_a_score_that_the_pool_lacks_and_one_pair_of_names_for_the_same_pairs_are_refused(
    scored: Pool, tmp_path: Path
) -> None:
    other = set_score(scored, np.arange(scored.count, dtype=np.float32), Scorer(name="other"))
    with pytest.raises(ValueError, match=r"quality top50 by othr: .*did you mean 'other'"):
        ids(other.path, tmp_path, "top50 by othr")
    with pytest.raises(ValueError, match="quality top50 by other and top50"):
        ids(other.path, tmp_path, "top50", "top50 by other")
    with pytest.raises(ValueError, match="quality subset:basic: "):
        ids(other.path, tmp_path, "subset:basic")


def test_columns_that_a_strategy_reads_are_part_of_its_trials_ids_and_costs(
    scored: Pool, tmp_path: Path
) -> None:
    study = TinyStudy(tmp_path, scored.path).study
    (block,) = study.declaration.grid
    grid = (replace(block, strategies=("clip", "reinforced")),)
    study = replace(study, declaration=replace(study.declaration, grid=grid))
    arrays = {f"teacher_{side}": [np.ones((scored.count, 4), np.float16)] for side in ("image", "text")}
    teacher = Scorer(name="teacher", model="a trial", pairs=scored.count, train_flops=70, scoring_flops=5)

    problem = r"reinforced reads columns of the index: unknown column 'teacher_image'; allowed"
    with pytest.raises(ValueError, match=problem):
        plan_study(study)
    set_column(scored, {"teacher_images": arrays["teacher_image"]})
    with pytest.raises(ValueError, match="did you mean 'teacher_images'"):
        plan_study(study)
    set_column(Pool.open(scored.path), arrays, teacher)
    first, name = plan_study(study), tree_name(scored.path, "declared")
    set_column(Pool.open(scored.path), {"teacher_text": [2 * arrays["teacher_text"][0]]}, teacher)
    second = plan_study(study)

    of = [{trial.cell.strategy: trial.trial_id for trial in plan.trials} for plan in (first, second)]
    assert len({name, tree_name(scored.path, "declared"), "declared"}) == 3  # of copies in a bucket
    assert of[0]["clip"] == of[1]["clip"] == ids(scored.path, tmp_path / "other", "top50")["top50"]
    assert of[0]["reinforced"] != of[1]["reinforced"]
    assert {cost.model: cost.scoring_flops for cost in first.score_costs["reinforced"]} == {"a trial": 5}
    assert sum(charge.flops for charge in score_charges(first.score_costs["reinforced"])) == 75


def test_a_partly_scored_pool_limits_only_the_qualities_of_that_score(scored: Pool, tmp_path: Path) -> None:
    partly = np.where(np.arange(scored.count) < 100, 1, np.nan).astype(np.float32)
    few = set_score(scored, partly, Scorer(name="few"))
    assert few.scores["few"].pairs == 100
    assert set(ids(few.path, tmp_path, "top50", "top50 by similarity")) == {"top50 by similarity"}


def test_scores_in_the_shards_of_a_folder_are_named_like_their_field(
    scored: Pool, tmp_path: Path, run: Run
) -> None:
    bare = tmp_path / "bare"
    for name in ("shards", "evaluation"):
        shutil.copytree(scored.path / name, bare / name)
    run(f"data build {bare} --in-place --workers 1")
    # The generator writes each score into the shards, as `similarity`.
    assert set(ids(bare, tmp_path, "all", "top50 by similarity")) == {"all", "top50 by similarity"}


def test_a_score_is_computed_from_others_and_named(scored: Pool, tmp_path: Path, run: Run) -> None:
    other = np.random.default_rng(0).normal(size=scored.count).astype(np.float32)
    first = column(scored, "score")
    set_score(scored, other, Scorer(name="other"))
    said = run(f"data score {scored.path} --with '=0.25*similarity - other' --name both --workers 1")
    assert "computed: 0.25*similarity - other" in said
    found = column(Pool.open(scored.path), "score:both")
    assert np.allclose(found, 0.25 * first - other, atol=1e-6)
    assert len(ids(scored.path, tmp_path, "top50 by both", "top50 by other")) == 2
    written = "top50 by 0.25 * similarity-other"
    named, by_name = ids(scored.path, tmp_path, written), ids(scored.path, tmp_path, "top50 by both")
    assert named == {"top50 by 0.25*similarity-other": by_name["top50 by both"]}
    pool = Pool.open(scored.path)
    best, same = (pool.subset(size=None, quality=each).rows() for each in ("top50 by both", *named))
    assert np.array_equal(best, same)
    with pytest.raises(ValueError, match=r"unknown score 'similarity-2\*other'"):
        ids(scored.path, tmp_path, "top50 by similarity - 2*other")
    for words, output in {
        "=othr --name x": "unknown name 'othr'; did you mean 'other'? allowed: ",
        "=other": "a computed score needs --name",
        "score:other --name x": "--name names a new score: leave it out with --with score:NAME",
        "score:other --metadata m.parquet": "--metadata needs --with column:NAME or --with =EXPRESSION",
        "=other --name by": "--name: 'by' can't name a score; names have up to 100 letters",
        "=other --name ''": "--name: '' can't name a score; names have up to 100 letters",
        "column:uid": "--name: 'uid' can't name a score; names have up to 100 letters",
        "=other --column x": "--column stores a model's embeddings or column:NAME, without --name",
    }.items():
        expression, option, rest = words.partition(" --")
        assert output in run(f"data score {scored.path} --with '{expression}' {option}{rest}", code=2)


def test_status_reports_a_ranking_that_has_changed_since_the_last_run(scored: Pool, tmp_path: Path) -> None:
    study = TinyStudy(tmp_path, scored.path)
    study.run()
    assert "ranking" not in study.says("status")
    set_score(scored, np.arange(scored.count, dtype=np.float32), Scorer(name="other"))

    assert study.says("run --dry-run").startswith("1 trial: 1 to run")
    assert "replaces 1 trial" in study.says("status")

    use_score(Pool.open(scored.path), "similarity")
    assert study.says("run --dry-run").startswith("1 trial: 1 finished, 0 to run")
    assert study.status()["ranked_anew"] == 0
