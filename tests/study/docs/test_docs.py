"""README, docs/ and its site: commands run, links resolve, and constants equal those of the code."""

import ast
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import yaml

import study
from budgets.quantity import format_flops
from study.cli import main
from study.declare.load import load_declaration
from tests.root import ROOT
from tests.study import shown
from tests.study.events import documented, require_documented
from tests.study.tiny_study import write_declaration

README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", shown.PAGES, ids=lambda page: page.stem)
def test_every_link_resolves_to_a_file_and_a_heading_as_github_names_it(page: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        target = page.parent / link if link else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            names = [re.sub(r"[^\w -]", "", each).strip().lower().replace(" ", "-") for each in headings]
            assert anchor in names, f"{page.name}: {link}#{anchor}"


def test_constants_in_the_method_page_equal_those_of_the_code() -> None:
    found = re.findall(r"^\| `([a-z_.]+)\.([A-Z_]+)` \| (.+) \|$", METHOD, re.MULTILINE)
    assert len(found) == 20
    for module, name, value in found:
        assert str(getattr(import_module(module), name)) == value, f"{module}.{name}"


def test_the_citation_is_complete() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert f'version = "{citation["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert citation["references"][0]["title"].startswith("Scaling (Down) CLIP")


def test_the_documented_make_targets_exist() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make (\w+)", README + contributing, re.MULTILINE))
    assert targets == {"demo", "test", "check", "newest", "docs", "dist", "release"}
    for target in targets:
        asked = subprocess.run(["/usr/bin/env", "make", "-n", target], cwd=ROOT, check=False)
        assert asked.returncode == 0, target


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_commands_of_the_tutorial_run_in_their_order(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown.draw_two_paper_figures(monkeypatch)
    said = shown.follow("docs/tutorial.md", lambda text: shrunk(text, pool), capsys)
    assert "3 of 3 trials finished" in said["report first.yaml"]
    used = {line.split()[0] for line in said}
    assert used == {"new", "plan", "calibrate", "run", "status", "report", "recommend", "completion"}


def test_the_plan_that_the_tutorial_shows_is_the_one_that_it_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [main(["new", "first"]), main(["plan", "first.yaml"])] == [0, 0]
    planned = capsys.readouterr().out.splitlines()

    (block,) = re.findall(r"```\n(every row: .+?)\n```", TUTORIAL, re.DOTALL)

    assert {line for line in block.splitlines() if line != "…"} <= set(planned)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 90
    assert len(README.split()) <= 500


def test_the_declaration_of_the_readme_is_that_of_the_tutorial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "first"]) == 0
    (declared,) = re.findall(r"```yaml\n(.+?)```", README, re.DOTALL)
    Path("readme.yaml").write_text(declared, encoding="utf-8")

    assert load_declaration(Path("readme.yaml")) == load_declaration(Path("first.yaml"))


def test_the_costs_of_the_tutorial_are_those_of_the_plans_and_of_the_shipped_studies(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \|.+\| ([\d of]+) \| ([\d.]+ [A-Z]+) \| (.+) \|$", TUTORIAL, re.MULTILINE
    )
    costs = {name: (trials, flops, time) for name, trials, flops, time in rows}
    for name in ("demo", "small-full", "small-trunk", "paper"):
        assert main(["plan", name]) == 0
        planned = capsys.readouterr().out
        trials, flops, time = costs[name]
        assert re.search(rf"^{name}: {trials} trials.*, {flops} of training in all", planned, re.MULTILINE)
        assert name != "paper" or f"{time.partition(' H100')[0]} hours of h100" in planned
    small, full = (
        int(pd.read_parquet(ROOT / "results" / name / "spent.parquet")["spent_flops"].sum())
        for name in ("small", "small-full")
    )
    trials = f"{len(pd.read_parquet(ROOT / 'results' / 'small' / 'results.parquet'))} of 312"
    assert costs["small"][:2] == (trials, format_flops(small))
    assert costs["small-full"][1] == format_flops(full)


def test_a_new_study_is_planned_as_the_page_on_declaring_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [main(shlex.split(line)) for line in shown.commands("docs/declare.md")] == [0, 0]


def test_the_twenty_keys_of_a_first_study_are_in_the_reference() -> None:
    keys, known = (
        re.findall(
            r"^\| `([a-z_.\[\]]+)` \|", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE
        )
        for page in ("declare.md", "declaration.md")
    )
    assert len(keys) == 20
    assert set(keys) <= set(known)


def test_the_example_of_strategies_needs_the_teacher_that_its_page_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [main(["plan", "teacher", "--format", "csv"]), main(["plan", "strategies"])] == [0, 2]
    planned, refused = capsys.readouterr()

    trial, (_, _, score, _, _) = planned.splitlines()[1][:12], shown.commands("docs/strategies.md")
    assert f" --with results/teacher/trials/{trial} --column teacher" in score
    assert "unknown column 'teacher_image'" in refused
    assert "data score POOL --column NAME` adds columns" in refused


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_built_and_no_script(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.parent.relative_to(site) for path in site.rglob("index.html")}
    assert built == pages | {Path(), Path("changes"), Path("dev/contributing")}
    assert not list(site.rglob("*.py"))


@pytest.mark.slow
def test_every_link_and_image_of_the_site_leads_to_a_file_and_a_heading(site: Path) -> None:
    checked = 0
    for page in site.rglob("index.html"):
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8")):
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            target = (page.parent / path).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{page}: {link}"
            if anchor:
                assert f'id="{anchor}"' in target.read_text(encoding="utf-8"), f"{page}: {link}"
            checked += 1
    assert checked > 500


@pytest.mark.slow
def test_no_page_loads_anything_from_another_server(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*https?://[^>]*>", page.read_text("utf-8"))
        assert not loaded, f"{page}: {loaded}"


def written() -> set[str]:
    """Return the names of events in the code."""
    names = set()
    for path in Path(study.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = [node.func, *node.args] if isinstance(node, ast.Call) else []
            if {"add_event", "self.event"} & set(map(ast.unparse, called)):
                names |= {str(each.value) for each in called if isinstance(each, ast.Constant)}
    return names


def test_every_event_is_documented_with_its_fields() -> None:
    assert {"trial-started", "node-left-out"} <= written() <= set(documented())


@pytest.mark.slow
def test_the_commands_of_the_page_on_watching_run_verbatim(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_declaration(tmp_path, pool, name="my-study")
    commands = shown.commands("docs/watching.md")
    for command in commands:
        words = [str(tmp_path / word) if word.endswith(".yaml") else word for word in shlex.split(command)]
        words += ["--backend", "local"] if words[0] == "run" else []

        assert main([*words, "--results", str(tmp_path)]) == 0, command

        said = capsys.readouterr().out
        if "--quiet" in words:
            assert all(line.startswith("note: ") for line in said.splitlines())
    assert len(commands) == 5
    require_documented(tmp_path / "my-study" / "events.jsonl")


def shrunk(text: str, pool: Path) -> str:
    """Return the tutorial's declaration with a smaller pool and less compute."""
    for whole, part in (
        ("embedded: {pairs: 8192}", f"path: {pool}"),
        ("[60 GFLOP, 180 GFLOP, 540 GFLOP]", "[20 GFLOP, 30 GFLOP, 40 GFLOP]"),
        ("  study: 15 TFLOP", "  study: 1 TFLOP"),
        ("seeds: [0, 1]", "seeds: [0]"),
        ("[mini-ViT-XXS-8, mini-ViT-XS-8, mini-ViT-S-8, mini-ConvNeXt]", "[mini-ViT-XS-8]"),
        ("[top40, all]", "[top40]"),
        ("[clip, flip-50]", "[clip]"),
    ):
        assert whole in text, whole
        text = text.replace(whole, part)
    return text
