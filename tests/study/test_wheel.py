"""The built wheel, installed outside the checkout, behaves like the checkout."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.root import ROOT
from tests.study.tiny_study import write_declaration

pytestmark = pytest.mark.slow

PACKAGES = ("study", "analysis", "runners", "budgets")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
FEW_PANELS = """
import sys
from analysis.report import paper
from study.cli import main
paper._FIGURES = paper._FIGURES[:2]
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that the checkout stays unchanged."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES, "results/paper", "results/open-clip-scaling"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "source" / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    subprocess.run([*PIP, "wheel", *offline, "--wheel-dir", folder, folder / "source"], check=True)
    (built,) = folder.glob("*.whl")
    return built


class Installed:
    """The wheel's commands with the libraries of this environment.

    Args:
        site: Where it is installed.
        folder: The working directory.
    """

    def __init__(self, site: Path, folder: Path) -> None:
        self._folder, self._script = folder, site / "bin" / "scaling-study"
        self._of_wheel = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def __call__(self, *words: object, code: int = 0) -> str:
        """Run ``scaling-study`` and return its output."""
        return self.python(self._script, *words, code=code)

    def python(self, *words: object, code: int = 0) -> str:
        found = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=self._folder,
            env=os.environ | self._of_wheel,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert found.returncode == code, found.stdout + found.stderr
        return found.stdout + found.stderr


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel; return its commands in an empty working directory."""
    site = tmp_path_factory.mktemp("site")
    subprocess.run([*PIP, "install", "--no-index", "--no-deps", "--target", site, wheel], check=True)
    found = Installed(site, tmp_path_factory.mktemp("empty"))
    where = found.python("-c", "import study, analysis; print(study.__file__, analysis.__file__)").split()
    assert where == [str(site / "study" / "__init__.py"), str(site / "analysis" / "__init__.py")]
    return found


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize(
    "name", ["paper/figures.csv", "open-clip-scaling/open_clip_scaling.csv", "open-clip-scaling/LICENSE"]
)
def test_the_wheel_contains_the_tables_of_maps_and_their_licence(wheel: Path, name: str) -> None:
    packaged, table = ROOT / "study" / "declare" / "maps" / name, ROOT / "results" / name
    assert packaged.resolve() == table
    assert ZipFile(wheel).read(str(packaged.relative_to(ROOT))) == table.read_bytes()


def test_the_console_script_is_the_module(installed: Installed) -> None:
    assert installed("--version") == f"clip-scaling-study {version('clip-scaling-study')}\n"
    assert installed("plan", "demo") == installed.python("-m", "study", "plan", "demo")
    by_module = installed.python("-m", "study", "recommend", "--help")
    assert (
        installed("recommend", "--help").split()
        == by_module.replace("python -m study", "scaling-study").split()
    )
    assert "did you mean 'demo'" in installed("plan", "dem", code=2)


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_a_study_goes_from_new_to_recommend(installed: Installed, pool: Path, tmp_path: Path) -> None:
    assert "first.yaml and its schema written" in installed("new", "first")
    assert "15 TFLOP" in installed("plan", "first.yaml")
    tiny = write_declaration(tmp_path, pool, architectures="mini-ViT-XXS-8, mini-ConvNeXt")

    ran = installed("run", tiny, "--only", "mini-ViT-XXS-8")
    assert "[1/2] mini-ViT-XXS-8 clip" in ran
    reported = installed("report", tiny).splitlines()
    assert reported[0].startswith("1 of 2 trials")
    assert reported[-1] == "report: results/tiny/report/report.html"
    assert installed.python("-c", FEW_PANELS, "report", "--paper").startswith("the paper's figures: ")
    prior = installed("recommend", "--prior", "paper-one-epoch", "--flops", "4e19", "--pairs", "3.4B")
    assert "ViT-B/32, CLIP, 1.16B pairs" in prior
    prior = installed("recommend", "--prior", "open-clip-scaling", "--flops", "1e21", "--pairs", "1B")
    assert "1 ZFLOP: ViT-L-14, MaMMUT, 1B pairs" in prior
