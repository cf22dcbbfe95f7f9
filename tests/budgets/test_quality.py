"""Qualities of a pool: their names and the pairs that they keep."""

import pytest

from budgets.quality import check_quality, check_score_name, count_available, quality_percent


@pytest.mark.parametrize(
    ("count", "quality", "expected"),
    [(1000, "top20", 200), (1001, "top20", 201), (7, "top1", 1), (32768, "top40", 13108), (5, "all", 5)],
)
def test_a_quality_keeps_its_percentage_rounded_up(count: int, quality: str, expected: int) -> None:
    assert count_available(count, quality) == expected


def test_qualities_are_fractions_or_named_subsets() -> None:
    assert [quality_percent(quality) for quality in ("top5", "top20", "all")] == [5, 20, 100]
    assert check_quality("subset:data-comp_1.b") == "subset:data-comp_1.b"


@pytest.mark.parametrize(
    "quality", ["top0", "top100", "best", "top 20", "top20%", "TOP20", "", "top020", "subset:", "subset:a b"]
)
def test_an_unknown_quality_is_answered_with_what_is_allowed(quality: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown quality '{quality}'; allowed: 'all', 'top1' to 'top99'"):
        check_quality(quality)


@pytest.mark.parametrize(
    "name", ["mine", "score", "ViT-B-32:openai", "v1.2", "topology", "2nd", "byte", "inner"]
)
def test_a_score_has_a_name_that_means_nothing_else(name: str) -> None:
    assert check_score_name(name, "--name") == name


@pytest.mark.parametrize("name", [
    "by", "BY", "all", "top50", "Top7", "1e3", "7", "0.5", "1-2", "2:1", "1e-3", "0x10", "nan", "Inf", "null",
    "TRUE", "uid", "key", "width", "caption", "Hash", "subset:x", "mixture:x", "score:x", "in:x", "a,b",
    "a/b", "a'b", 'a"b', "a+b", "naïve", "-a", ".a", "", "my score", " mine", "mine ", "a\nb", "x" * 101,
])  # fmt: skip
def test_a_name_that_reads_as_something_else_is_refused_with_what_is_allowed(name: str) -> None:
    problem = r"^--score: '.*' can't name a score; names have up to 100 letters, .*, as 1e3, all, by, top50"
    with pytest.raises(ValueError, match=problem):
        check_score_name(name, "--score")
