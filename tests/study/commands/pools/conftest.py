"""A user's folder of icons, without and with the pool that is built of them, and the documented commands."""

import shlex
import shutil
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from runners.data.pool.samples import read_samples
from runners.data.pool.shards import close_shard, write_sample
from study.cli import main
from tests.study import shown

PAIRS = 300
COMMANDS = [
    line
    for page in ("data", "evaluation")
    for line in shown.commands(f"docs/{page}.md")
    if line[:4] == "data"
]
"""The commands about pools and evaluation sets that docs/data.md and docs/evaluation.md show."""


def command(part: str) -> str:
    """Return the documented command that contains these words, with one worker process."""
    (found,) = (each for each in COMMANDS if part in each)
    return f"{found} --workers 1"


@pytest.fixture(scope="session")
def icons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a user's folder: Material Design icons, their names as captions, and some invalid files."""
    material = pytest.importorskip("material", reason="mkdocs-material brings the icons")
    resvg = pytest.importorskip("resvg_py", reason="it draws them")
    source = Path(material.__file__).parent / "templates" / ".icons" / "material"
    folder = tmp_path_factory.mktemp("user")
    (folder / "png").mkdir()
    rows = []
    for number, svg in enumerate(sorted(source.glob("*.svg"))[: PAIRS * 20 : 20]):
        drawn = bytes(resvg.svg_to_bytes(svg_path=str(svg), width=48, height=48, background="white"))
        (folder / "png" / f"{svg.stem}.png").write_bytes(drawn)
        rows.append(
            {
                "image": f"png/{svg.stem}.png",
                "caption": f"an icon of {svg.stem.replace('-', ' ')}",
                "popularity": float(number * 7919 % 101),
                "uid": f"{number:032x}",
            }
        )
    assert len(rows) == PAIRS
    (folder / "png" / "empty.png").write_bytes(b"")
    (folder / "png" / "page.png").write_text("<html>not found</html>")
    bad = ("png/empty.png", "png/page.png", "png/nowhere.png")
    rows += [{"image": name, "caption": "rubbish", "popularity": 1.0, "uid": ""} for name in bad]
    rows += [rows[0] | {"image": rows[0]["image"]}, rows[1] | {"caption": " "}]
    pd.DataFrame(rows).to_csv(folder / "icons.csv", index=False)
    return folder


@pytest.fixture
def user(icons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that folder, set as the working directory."""
    folder = tmp_path / "user"
    shutil.copytree(icons, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def built_icons(icons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the pool of the icons, built by the documented command."""
    folder = tmp_path_factory.mktemp("built") / "user"
    shutil.copytree(icons, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(shlex.split(command("--from icons.csv"))) == 0
    return folder / "pools" / "icons"


@pytest.fixture
def owner(user: Path, built_icons: Path) -> Path:
    """Return the user's folder, set as the working directory, with the pool of the icons."""
    shutil.copytree(built_icons, user / "pools" / "icons")
    return user


def write_retrieval_set(folder: Path, shard: Path) -> None:
    """Write 40 pairs as an evaluation set: ten each unchanged, as other PNG, as JPEG and as larger JPEG."""
    (folder / "test").mkdir(parents=True)
    (folder / "dataset_type.txt").write_text("retrieval")
    (folder / "test" / "nshards.txt").write_text("1")
    with (folder / "test" / "0.tar").open("wb") as file:
        for number, (key, members) in zip(range(40), read_samples(shard), strict=False):
            as_is, (kind, changed) = members["png"][1], (("png", BytesIO()), ("jpg", BytesIO()))[number // 20]
            with Image.open(BytesIO(as_is)) as opened:
                image = opened.convert("RGB")
            larger = image.resize((72, 72), Image.Resampling.LANCZOS)
            if kind == "png":
                image.save(changed, "PNG", compress_level=1)  # other bytes, the same pixels
            else:
                (image if number < 30 else larger).save(changed, "JPEG", quality=80)
            content = as_is if number < 10 else changed.getvalue()
            write_sample(file, key, {kind: content, "txt": members["txt"][1]})
        close_shard(file)
