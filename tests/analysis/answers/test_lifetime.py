"""Training and serving together: a smaller model that is trained longer wins where much is served."""

import pytest
from pandas.testing import assert_frame_equal

from analysis.answers.recommendation import recommend
from analysis.belief.cell_draws import CellDraws
from budgets.cost.serving import Served
from tests.analysis.answers.test_recommend import POOL, crossing, drawn, lines_of

LARGE, SMALL = 4e6, 1e6  # forward FLOPs of an image


@pytest.fixture(scope="module")
def draws() -> CellDraws:
    return drawn(crossing())


def served(images: float) -> dict[str, Served]:
    return {"ViT-M": Served(flops=images * LARGE), "ViT-X": Served(flops=images * SMALL)}


def test_with_nothing_served_the_answer_is_that_of_training_alone(draws: CellDraws) -> None:
    alone, life = (recommend(draws, flops=8e12, pairs=POOL, serving=it) for it in (None, served(0)))
    assert_frame_equal(alone.candidates, life.candidates)
    assert lines_of(alone) == lines_of(life)
    alone, life = (recommend(draws, error=0.45, pairs=POOL, serving=it) for it in (None, served(0)))
    assert alone.least == life.least


def test_the_small_model_wins_where_much_is_served(draws: CellDraws) -> None:
    few, many = (recommend(draws, error=0.47, pairs=POOL, serving=served(images)) for images in (1e3, 1e7))
    assert few.candidates["architecture"][0] == "ViT-M"
    assert many.candidates["architecture"][0] == "ViT-X"
    first = many.candidates.iloc[0]
    assert first["flops"] > few.candidates["flops"][0], "trained longer"
    assert many.flops == pytest.approx(first["flops"] + first["serving_flops"])


def test_more_served_never_costs_less_and_the_training_is_what_serving_leaves(draws: CellDraws) -> None:
    least = [
        recommend(draws, error=0.47, pairs=POOL, serving=served(images)).flops
        for images in (0, 1e4, 1e5, 1e6, 1e7)
    ]
    assert least == sorted(least)
    found = recommend(draws, flops=8e12, pairs=POOL, serving=served(1e6))
    for _, row in found.candidates.iterrows():
        assert row["flops"] + row["serving_flops"] == pytest.approx(8e12)


def test_what_cannot_be_deployed_takes_no_part_and_says_why(draws: CellDraws) -> None:
    serving = {"ViT-M": Served(why_not="it has 9 GFLOP an image, where at most 5 GFLOP may be")}
    found = recommend(draws, flops=8e12, pairs=POOL, serving=serving)
    assert set(found.candidates["architecture"]) == {"ViT-X"}
    assert any("not read (1 configuration): it has 9 GFLOP an image" in line for line in lines_of(found))
    too_much = recommend(draws, flops=8e12, pairs=POOL, serving={"ViT-M": Served(flops=1e13)})
    assert too_much.left_out["reason"].tolist() == ["serving alone costs 10 TFLOP"]
