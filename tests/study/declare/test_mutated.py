"""A declaration that is changed at random gives a plan or clear errors, never a traceback."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.cli import main
from study.state import design
from tests.study.declared import full, places

pytestmark = pytest.mark.slow

_WORDS = """
~ null all x -1 0 1 1.5 nan .inf 1e999999999 -1e-999999999 1e30 99999999999999999999 1e15 1e14 10M 120% 100%
0% top1 top99 clip slip siglip clipa flip-25 RN50 ViT-L-14 mini-ConvNeXt drop one-epoch equal-samples
fixed-compute true 2 5 10k 0.5 30% é ../.. { } *x &a ' "
"""
_PHRASES = [
    "",
    "1 GFLOP",
    "5 EFLOP",
    "3 gpu-days of h100 at 40%",
    "a b",
    "!!int 3",
    "\t",
    "a: b",
    "- a",
    "x" * 5000,
]
JUNK = st.sampled_from([*_WORDS.split(), *_PHRASES]) | st.text(max_size=8)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
VALUES: st.SearchStrategy[Any] = st.recursive(
    JUNK, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JUNK, inner, max_size=3), max_leaves=4
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Draw a valid declaration with values replaced, removed or added, or with its text damaged."""
    content: Any = full()
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
        *way, last = draw(st.sampled_from(places(content)))
        parent = content
        for key in way:
            parent = parent[key]
        what = draw(st.sampled_from(["replace", "replace", "delete", "rename", "repeat"]))
        if what == "replace":
            parent[last] = draw(VALUES)
        elif what == "repeat" and isinstance(parent, list):
            parent.append(parent[last])
        elif what == "rename" and isinstance(parent, dict):
            parent[draw(JUNK)] = parent.pop(last)
        else:
            del parent[last]
        if not content:
            break
    text: str = yaml.dump(content, Dumper=_DUMPER, allow_unicode=True, sort_keys=False)
    if draw(st.integers(0, 3)) == 0:
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + draw(JUNK) + text[cut + draw(st.integers(0, 9)) :]
    return text


@pytest.fixture(scope="module", autouse=True)
def one_rehearsal() -> Iterator[None]:
    """Rehearse an adaptive study once; each rehearsal takes a third of a second."""
    with patch.object(design, "_REHEARSALS", 1):
        yield


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=mutated())
def test_no_change_of_a_declaration_gives_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    output, errors = io.StringIO(), io.StringIO()

    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        folders = ["--pools", str(path.parent), "--results", str(path.parent)]
        code = main(["plan", str(path), *folders])

    assert code in {0, 2}
    assert bool(errors.getvalue()) == (code == 2)
    assert "Traceback" not in errors.getvalue()
