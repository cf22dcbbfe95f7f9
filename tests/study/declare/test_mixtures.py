"""Mixtures in a declaration: what is read, written back and refused."""

import re
from pathlib import Path

import pytest

from budgets.declaration.data_sections import DeclaredPool, EmbeddedPool, MixedPool
from budgets.planning.facts import MixtureFacts, PoolFacts
from study.declare.dump import dump_declaration
from study.declare.load import load_declaration
from tests.root import ROOT
from tests.study.declared import MIXED, problems, write


def test_pools_and_mixtures_are_read_and_written_back(tmp_path: Path) -> None:
    declaration = load_declaration(write(tmp_path, MIXED))

    assert declaration.pools == {
        "web": DeclaredPool(path=str(tmp_path / "pools/web")),
        "icons": DeclaredPool(embedded=EmbeddedPool(pairs=4_000, seed=3)),
    }
    assert declaration.mixtures == {
        "union": {"web": MixedPool(quality="top20"), "icons": MixedPool(pairs=1_000)},
        "half": {"web": MixedPool(weight=0.5), "icons": MixedPool(weight=0.5)},
    }
    assert declaration.qualities(declaration.grid[0]) == ("mixture:half",)
    assert declaration.qualities(declaration.grid[1]) == ("mixture:union", "mixture:half")
    assert load_declaration(write(tmp_path, dump_declaration(declaration))) == declaration


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("half: {web: 0.5", "half: {wbe: 0.5",
         "8: mixtures.half: unknown pool 'wbe'; did you mean 'web'? allowed: icons, web"),
        ("web: 0.5", "web: 0", "8: mixtures.half.web: '0' must be more than 0"),
        ("web: 0.5", "web: {quality: top20}",
         "8: mixtures.half.web.weight is missing: give each pool of the mixture one, or none of them"),
        ("quality: top20", "quality: best",
         ("7: mixtures.union.web.quality: unknown quality 'best'; allowed: 'all', 'top1' to 'top99' "
          "(best N %), 'top40 by SCORE', 'top40 by EXPRESSION', 'subset:NAME'")),
        ("quality: top20", "qualty: top20",
         ("7: unknown key 'mixtures.union.web.qualty'; did you mean 'mixtures.union.web.quality'? allowed: "
          "mixtures.union.web.pairs, mixtures.union.web.quality, mixtures.union.web.weight")),
        ("mixtures: [half]", "mixtures: [hlaf]",
         "11: grid[1].mixtures: unknown mixture 'hlaf'; did you mean 'half'? allowed: half, union"),
        ("mixtures: [half]", "mixtures: [half], quality: [top20]",
         ("11: grid[1].quality: a mixture's pools have their own quality: "
          "mixtures: {NAME: {POOL: {quality: top20}}}")),
        ("mixtures: [half]", "mixtures: [union]",
         "11: grid[1].sizes: the mixture union declares pairs of its pools, so only all is allowed"),
        ("mixtures: [union]", "mixtures: [union], quality: [all]",
         ("14: exclude[1].quality: a mixture's pools have their own quality: "
          "mixtures: {NAME: {POOL: {quality: top20}}}")),
        ("  half: {web: 0.5, icons: {weight: 0.5}}", "  half: {}", "8: mixtures.half names no pool"),
        ("pools:", "pool: {path: pools/web}\npools:",
         ("4: pools is not allowed with pool: name each pool under pools\n"
          "7: mixtures is not allowed with pool: name each pool under pools")),
        ("web: pools/web", "web: {name: web, pairs: 10M}",
         "3: pools: either all of them are described (name, pairs, scored), or none"),
        ("web: pools/web", "web: {path: web, name: web}",
         "4: pools.web needs one of embedded: {pairs, seed}, path: FOLDER, or name: NAME"),
        ("web: pools/web", "we b: pools/web", "4: pools: 'we b' names a folder"),
    ],
)  # fmt: skip
def test_an_invalid_mixture_is_refused_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert MIXED.count(old) == 1
    assert "\n".join(problems(tmp_path, MIXED.replace(old, new))).startswith(said)


def test_the_error_of_a_study_without_pool_says_what_to_declare(tmp_path: Path) -> None:
    start, end = MIXED.lstrip().split("mixtures:\n")[0], MIXED[MIXED.index("budget:") :]
    end = end.replace("mixtures: [half], ", "").replace("mixtures: [union], ", "")
    assert problems(tmp_path, start + end) == [
        "1: mixtures is missing: declare a pool, or pools and mixtures of them"
    ]
    assert problems(tmp_path, "study: mixed\n" + end) == [
        "1: pool is missing: declare a pool, or pools and mixtures of them"
    ]


def test_the_documented_example_has_the_documented_epochs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (shown,) = (block for block in re.findall(r"```yaml\n(.+?)```", page, re.DOTALL) if "mixtures:" in block)
    text = f"{shown}budget: {{levels: [1 EFLOP]}}\ntraining: {{lr_peak: {{ViT-B-32: 1e-3}}}}\n"
    declaration = load_declaration(write(tmp_path, text))
    pools = {
        name: PoolFacts(name=name, pairs=pairs, scored=True)
        for name, pairs in (("web", 9_000_000), ("icons", 1_000_000))
    }
    facts = MixtureFacts(pools=pools, mixtures=declaration.mixtures)

    def epochs(mixture: str, size: int) -> dict[str, float]:
        parts = facts.components(f"mixture:{mixture}", size)
        period = sum(part.share for part in parts)
        return {part.name: 9_000_000 * part.share / period / part.pairs for part in parts}

    assert epochs("half", 2_800_000) == {"web": 2.5, "icons": 4.5}
    assert epochs("union", 2_800_000) == pytest.approx({"web": 3.2, "icons": 3.2}, rel=0.01)
    assert epochs("half", 1_000_000) == {"web": 9, "icons": 9}
    assert [part.pairs for part in facts.components("mixture:half", 1_000_000)] == [500_000, 500_000]
