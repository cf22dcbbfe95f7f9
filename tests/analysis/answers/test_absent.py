"""Configurations that were not run at a budget count by their draws, in the report and the recommendation."""

import numpy as np
import pandas as pd
import pytest

from analysis.answers.best import best_at_budgets
from analysis.answers.recommendation import recommend
from analysis.belief.cell_draws import cell_draws
from analysis.cells.table import records, tidy
from tests.analysis.synthetic import trial_row

LEVELS = np.geomspace(2e11, 2e11 * 3**4, 5)
PAIRS = 90_000


def overtaking(seed: int, *, without: tuple[str, slice]) -> tuple[pd.DataFrame, str]:
    """Return three seeds of a small, a large and a worse model, and the best at the top level.

    The large one is steeper and overtakes at the top; one of them was not run at some levels.
    """
    generator = np.random.default_rng(seed)
    floor, scale, alpha = generator.uniform((0.35, 0.2, 0.35), (0.45, 0.3, 0.6))
    gain, crossing = generator.uniform((0.08, 2.2), (0.2, 3.6))
    steeper = alpha * generator.uniform(0.6, 1.1)
    u = LEVELS / LEVELS[0]
    at = 3.0**crossing
    lines = {
        "ViT-X": floor + scale * u**-alpha, "ViT-S": floor + 0.03 + 1.1 * scale * u**-alpha,
        "ViT-M": floor - gain + (gain + scale * at**-alpha) * (u / at) ** -steeper,
    }  # fmt: skip
    absent = range(len(LEVELS))[without[1]]
    rows = pd.DataFrame([
        trial_row(
            (PAIRS, "all", name, "clip"), float(level), number, float(error)
        )
        for name, line in lines.items()
        for place, (level, error) in enumerate(zip(LEVELS, line, strict=True))
        if name != without[0] or place not in absent
        for number in range(3)
    ])  # fmt: skip
    noisy = rows["held-out/top1"] + 0.006 * generator.standard_normal(len(rows))
    rows["held-out/top1"] = noisy.clip(0.01, 0.99)
    return rows, min(lines, key=lambda name: float(lines[name][-1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "without", [("ViT-M", slice(4, None)), ("ViT-M", slice(3, None)), ("ViT-X", slice(1, None))],
    ids=["the large one not at the top", "nor below it", "the small one at the smallest level alone"],
)  # fmt: skip
def test_what_was_not_run_and_overtakes_is_never_passed_over(without: tuple[str, slice]) -> None:
    wrong, named = 0, 0
    for seed in range(20):
        results, best = overtaking(seed, without=without)
        draws = cell_draws(tidy(results, metric="held-out/top1"), draws=400)
        found = recommend(draws, flops=LEVELS[-1], pairs=PAIRS)
        leaders = found.candidates["architecture"][list(found.verdict.members)].tolist()
        row = records(best_at_budgets(draws))[-1]
        assert (row["verdict"], row["reason"]) == (found.verdict.kind, found.verdict.reason)
        assert row["architecture"] == leaders[0]
        wrong += found.verdict.kind == "clear" and leaders[0] != best
        named += best in leaders
    assert wrong <= 1
    assert named >= 19


def test_a_leader_that_was_not_run_at_the_level_is_named_with_that() -> None:
    results, _ = overtaking(3, without=("ViT-M", slice(4, None)))
    found = recommend(cell_draws(tidy(results, metric="held-out/top1")), flops=LEVELS[-1], pairs=PAIRS)
    assert found.candidates["architecture"][0] == "ViT-M"
    assert found.verdict.kind != "clear"
    assert "not run here" in found.verdict.reason
    assert "run ViT-M, CLIP, 90,000 pairs, all" in found.experiment
