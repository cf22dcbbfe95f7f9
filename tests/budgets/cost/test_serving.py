"""What a model costs when it serves, and which may be deployed."""

import re
from dataclasses import replace

import pytest

from budgets.cost.architecture import catalogue, load_architecture
from budgets.cost.flops import count_parameters, sample_cost
from budgets.cost.serving import Deployment, Served, tower_parameters
from budgets.cost.strategy import Strategy

CLIP = Strategy(name="clip", label="CLIP")


def test_serving_costs_the_forward_pass_of_every_input() -> None:
    served = Deployment(images=1e6, texts=1000).served(catalogue(), {})
    for name in ("ViT-B-32", "RN50", "mini-ViT-S-8"):
        architecture = load_architecture(name)
        cost = sample_cost(architecture, CLIP, batch_size=1)
        assert served[name] == Served(flops=2 * (1e6 * cost.image_macs + 1000 * cost.text_macs))
        assert tower_parameters(architecture) == count_parameters(architecture, CLIP).total - 1


def test_what_exceeds_a_limit_says_so_and_the_smallest_limit_of_a_kind_counts() -> None:
    served = Deployment.of(at_most=("20 GFLOP", "10 GFLOP", "200M")).served(
        ["ViT-B-32", "ViT-L-14", "RN50"], {}
    )
    assert served["ViT-B-32"] == Served()
    assert served["RN50"].why_not.startswith("it has ")
    both = r"it has 162 GFLOP an image, where at most 10 GFLOP and 427\.6M parameters, where at most 200M"
    assert re.match(both, served["ViT-L-14"].why_not), served["ViT-L-14"]


def test_a_model_of_ones_own_is_known_by_its_own_config_and_others_not_at_all() -> None:
    mine = replace(load_architecture("mini-ViT-S-8"), name="mine")
    served = Deployment.of(images=10).served(["mine", "theirs"], {"mine": mine})
    assert served["mine"].flops > 0
    assert served["theirs"].why_not == "what theirs costs when it serves is unknown"


def test_without_a_question_nothing_is_looked_up() -> None:
    assert Deployment().served(["theirs"], {}) == {}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"at_most": ["1 GFLOP"]},
            r"the nearest is ViT-B-32: .* an image, where at most 1 GFLOP may be \(8\.",
        ),
        ({"at_most": ["big"]}, "at most: 'big' is not a number"),
        ({"images": -1}, "images must be at least 0; found -1"),
        ({"texts": float("inf")}, "texts must be at least 0; found inf"),
    ],
)
def test_what_leaves_nothing_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Deployment.of(**asked).served(["ViT-B-32", "ViT-L-14"], {})  # type: ignore[arg-type]
