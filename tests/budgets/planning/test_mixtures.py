"""Mixtures of pools in a plan: sizes, shares, epochs and ids."""

import re
from dataclasses import replace

import pytest

from budgets.declaration.data_sections import DeclaredPool, MixedPool
from budgets.declaration.sections import Exclusion, GridBlock
from budgets.planning.facts import Component, MixtureFacts, PoolFacts, Ranking
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import trunk_id
from budgets.planning.planner import make_plan
from tests.budgets.plans import LADDER, NO_EVALUATION, declare

WEB = PoolFacts(name="web-id", pairs=9_000, scored=True, unranked="web-plain", rankings={
    "mine": Ranking(name="web-mine", scored_pairs=9_000),
})  # fmt: skip
ICONS = PoolFacts(name="icons-id", pairs=1_000, scored=False)
POOLS = {"web": WEB, "icons": ICONS}
Mixture = dict[str, MixedPool]
UNION: Mixture = {"web": MixedPool(), "icons": MixedPool()}
HALF: Mixture = {"web": MixedPool(weight=0.5), "icons": MixedPool(weight=0.5)}


def planned(
    mixtures: dict[str, Mixture],
    *blocks: GridBlock,
    pools: dict[str, PoolFacts] | None = None,
    **changes: object,
) -> Plan:
    pools = pools or POOLS
    declaration = declare(
        *(blocks or (GridBlock(architectures=LADDER[:1]),)),
        pool=None,
        pools={name: DeclaredPool(name=facts.name, pairs=facts.pairs) for name, facts in pools.items()},
        mixtures=mixtures,
        **changes,
    )
    return make_plan(declaration, pool=MixtureFacts(pools=pools, mixtures=mixtures), evaluation=NO_EVALUATION)


def components(mixture: Mixture, size: int | None = None) -> tuple[Component, ...]:
    facts = MixtureFacts(pools=POOLS, mixtures={"it": mixture})
    return facts.components("mixture:it", size or facts.available("mixture:it"))


def parts(mixture: Mixture, size: int | None = None) -> dict[str, tuple[int, int]]:
    return {component.name: (component.pairs, component.share) for component in components(mixture, size)}


def test_without_weights_each_pair_is_seen_equally_often() -> None:
    assert parts(UNION) == {"web": (9_000, 9_000), "icons": (1_000, 1_000)}
    assert parts(UNION, 50) == {"web": (45, 45), "icons": (5, 5)}
    few = {"web": MixedPool(quality="top10"), "icons": MixedPool(pairs=300)}
    assert parts(few) == {"web": (900, 900), "icons": (300, 300)}


def test_weights_share_the_samples_and_divide_a_size() -> None:
    assert parts(HALF) == {"web": (9_000, 2048), "icons": (1_000, 2048)}
    thirds = {"web": MixedPool(weight=0.2), "icons": MixedPool(weight=0.1)}
    assert parts(thirds) == {"web": (9_000, 2730), "icons": (1_000, 1365)}
    assert parts(thirds, 300) == {"web": (200, 200), "icons": (100, 100)}


def test_a_mixture_is_an_axis_of_the_grid_and_sizes_go_with_it() -> None:
    block = GridBlock(architectures=LADDER[:1], sizes=(800, None))
    plan = planned({"union": UNION, "half": HALF}, block, levels=(100 * 10**9,))

    assert [(trial.cell.quality, trial.cell.subset_size) for trial in plan.trials] == [
        ("mixture:union", 800), ("mixture:half", 800), ("mixture:union", 10_000), ("mixture:half", 10_000)
    ]  # fmt: skip
    assert len({trial.trial_id for trial in plan.trials}) == 4
    assert [component.pairs for component in plan.trials[1].mixture] == [400, 400]


def test_a_mixture_that_takes_the_pairs_of_another_at_a_size_is_left_out_there() -> None:
    block = GridBlock(architectures=LADDER[:1], sizes=(800, None))
    equal = {"web": replace(WEB, pairs=1_000), "icons": ICONS}
    plan = planned({"union": UNION, "half": HALF}, block, pools=equal, levels=(100 * 10**9,), seeds=(0, 1))

    assert [(trial.cell.quality, trial.cell.subset_size) for trial in plan.trials[::2]] == [
        ("mixture:union", 800), ("mixture:union", 2_000), ("mixture:half", 2_000)
    ]  # fmt: skip
    assert len({trial.trial_id for trial in plan.trials}) == len(plan.trials) == 6
    (left_out,) = plan.left_out
    assert (left_out.cell.quality, left_out.cell.subset_size) == ("mixture:half", 800)
    assert left_out.reason.endswith(" mixture:union")

    sized = GridBlock(architectures=LADDER[:1], sizes=(800,))
    chosen = [
        planned(mixtures, sized, pools=equal, levels=(), study_flops=10**12).levels
        for mixtures in ({"union": UNION, "half": HALF}, {"union": UNION})
    ]
    assert chosen[0] == chosen[1], "the levels are not chosen as if it were run"


def test_the_pool_that_lacks_pairs_is_named() -> None:
    block = GridBlock(architectures=LADDER[:1], sizes=(4_000, 800))
    plan = planned({"half": HALF}, block)
    assert {item.reason for item in plan.left_out} == {
        "2,000 pairs requested, but the pool icons holds 1,000 of quality all"
    }

    best = {"web": MixedPool(weight=1), "icons": MixedPool(weight=1, quality="top20")}
    plan = planned({"union": UNION, "best": best})
    (reason,) = {item.reason for item in plan.left_out}
    assert re.search("pool icons .*top20", reason)


def test_the_pool_that_is_repeated_most_is_held_to_the_epochs() -> None:
    few = {"union": UNION, "few": {"web": MixedPool(weight=1), "icons": MixedPool(weight=1, pairs=64)}}
    samples = GridBlock(architectures=LADDER[:1], regime="equal-samples", samples=(192_000,))
    plan = planned(few, samples)
    assert [trial.cell.quality for trial in plan.trials] == ["mixture:union"]
    (left_out,) = plan.left_out
    assert re.match(r"192,000 samples: 1,500\.0 epochs .*64 pairs .*pool icons", left_out.reason)


def test_exclusions_name_mixtures() -> None:
    plan = planned({"union": UNION, "half": HALF}, exclude=(Exclusion(mixtures=("half",)),))
    assert {trial.cell.quality for trial in plan.trials} == {"mixture:union"}
    assert {item.reason.split()[-1] for item in plan.left_out} == {"exclude[1]"}


def ids(mixture: Mixture, pools: dict[str, PoolFacts] | None = None, name: str = "it") -> list[str]:
    return [trial.trial_id for trial in planned({name: mixture}, pools=pools).trials]


@pytest.mark.parametrize("quality", ["all", "top20", "top20 by mine"])
def test_a_mixture_of_one_pool_has_the_ids_of_the_pool_alone(quality: str) -> None:
    block = GridBlock(architectures=LADDER[:1], quality=(quality,))
    alone = make_plan(declare(block), pool=WEB, evaluation=NO_EVALUATION).trials
    for weight in (None, 1.0, 3.0):
        mixed = planned({"only": {"web": MixedPool(weight=weight, quality=quality)}}).trials
        assert [trial.trial_id for trial in mixed] == [trial.trial_id for trial in alone]
        assert [trunk_id(trial) for trial in mixed] == [trunk_id(trial) for trial in alone]


def test_ids_depend_on_pairs_and_weights_and_on_no_name() -> None:
    half = ids(HALF)
    assert ids(HALF, name="other") == half
    assert ids({"icons": MixedPool(weight=3), "web": MixedPool(weight=3)}) == half
    assert ids({"a": HALF["web"], "b": HALF["icons"]}, {"a": WEB, "b": ICONS}) == half
    for different in (
        UNION,
        {"web": MixedPool(weight=2), "icons": MixedPool(weight=1)},
        {"web": MixedPool(weight=1, quality="top20"), "icons": MixedPool(weight=1)},
        {"web": MixedPool(weight=1, pairs=8_999), "icons": MixedPool(weight=1)},
    ):
        assert set(ids(different)).isdisjoint(half)
    assert set(ids(HALF, {"web": replace(WEB, unranked="other"), "icons": ICONS})).isdisjoint(half)
    # Another score ranks the pool now: the pairs of ``all`` are the same.
    assert ids(HALF, {"web": replace(WEB, name="ranked-anew"), "icons": ICONS}) == half


def test_a_weight_that_gives_a_trial_less_than_one_sample_is_warned_about() -> None:
    tiny = {"web": MixedPool(weight=1.0), "icons": MixedPool(weight=5e-5)}
    plan = planned({"half": HALF, "tiny": tiny}, levels=(100 * 10**9, 300 * 10**9))
    shorter, longer = [trial for trial in plan.trials if trial.cell.quality == "mixture:tiny"]
    assert shorter.samples_seen < 20_000 < longer.samples_seen

    (warning,) = [note for note in plan.warnings if "weight" in note]
    assert warning.startswith("1 trial would see less than one sample of a pool, such as ")
    assert f"{shorter.samples_seen / 20_001:.2g} of icons in {shorter.cell}" in warning
