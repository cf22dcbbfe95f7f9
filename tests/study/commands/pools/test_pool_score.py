"""``python -m study data info`` and ``data score`` on a real icon set."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from budgets.cost.architecture import load_architecture
from runners.data.pool.pool import Pool
from runners.models.model import build_model
from tests.root import ROOT
from tests.study.commands.pools.conftest import command
from tests.study.conftest import Run

pytestmark = pytest.mark.slow


def test_info_prints_counts_scores_and_reasons_and_draws_a_sheet(owner: Path, run: Run) -> None:
    run(command("column:popularity"))
    said = run(command("data info"))
    assert "pool icons: 300 pairs in 1 shard," in said
    assert "ranked by the score of popularity; 300 pairs have one:" in said
    assert "left out: 1 unreadable image" in said
    assert re.search(r"top20: 60 pairs from 8\d\.0000 up", said)
    assert re.search(r" 7\d\.\d+ to  +8\d\.\d+ +\d+  #+  < top20 begins\n", said)
    with Image.open(owner / "icons.png") as sheet:
        assert sheet.size == (528, 1408)
        assert len(sheet.getcolors(1 << 16) or []) > 50


def test_a_sheet_replaces_a_png_alone_and_a_full_disk_leaves_the_old_one(owner: Path, run: Run) -> None:
    record = owner / "pools" / "icons" / "pool.json"
    before = record.read_bytes()
    for other in (record, owner / "pools"):
        said = run(f"data info pools/icons --sheet {other}", code=2)
        assert said == f"study: --sheet {other} is drawn as a PNG: name a file that ends in .png\n"
    assert record.read_bytes() == before

    sheet = owner / "sheet.png"
    run(f"data info pools/icons --sheet {sheet}")
    drawn = sheet.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "save", _write_some)
        said = run(f"data info pools/icons --sheet {sheet}", code=2)
    assert f"study: {sheet} could not be written: No space left on device" in said
    assert sheet.read_bytes() == drawn
    assert not list(owner.glob(".*"))
    Image.new("RGB", (1, 1)).save(sheet)
    run(f"data info pools/icons --sheet {sheet}")
    assert sheet.read_bytes() == drawn


def _write_some(_image: Image.Image, path: Path, _kind: str) -> None:
    path.write_bytes(b"some")
    _fill()


def _fill(*_words: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_names_the_pool_that_is_scored(
    owner: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert owner.is_dir()
    monkeypatch.setattr("runners.data.build.rescore.set_score", _fill)
    said = run("data score pools/icons --with =width --name w", code=2)
    assert said == (
        "study: pools/icons could not be written: No space left on device; free some space and run the same "
        "command again to continue\n"
    )


def test_a_pool_keeps_all_scores_and_the_chosen_one_ranks(
    owner: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shallow = open_clip.get_model_config("ViT-S-32-alt")
    shallow["vision_cfg"]["layers"] = shallow["text_cfg"]["layers"] = 1
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-S-32-alt", shallow)  # noqa: SLF001 - restored
    model = open_clip.create_model("ViT-S-32-alt")
    torch.save(model.state_dict(), owner / "checkpoint.pt")
    run(command("--name mine"))
    pool = Pool.open(owner / "pools" / "icons")
    mine = pool.frame.set_index("hash")["score"]
    # The same similarity by open_clip's own preprocessing and tokenizer.
    loaded, _, preprocess = open_clip.create_model_and_transforms(
        "ViT-S-32-alt", pretrained=str(owner / "checkpoint.pt")
    )
    loaded.eval()
    row = pool.frame.iloc[5]
    name = row["caption"].removeprefix("an icon of ").replace(" ", "-")
    with Image.open(owner / "png" / f"{name}.png") as image, torch.no_grad():
        one = loaded.encode_image(preprocess(image)[None], normalize=True)
        text = loaded.encode_text(open_clip.get_tokenizer("ViT-S-32-alt")([row["caption"]]), normalize=True)
    assert row["score"] == pytest.approx(float((one * text).sum()), abs=1e-5)

    pool.frame[["uid"]].assign(recaption="an icon").to_csv(owner / "recaptions.csv", index=False)
    assert "columns for strategies: recaption\n" in run(command("--column recaption"))
    assert "columns for strategies: recaption, teacher_image, teacher_text" in run(
        command("--column teacher")
    )

    before = {path: path.stat().st_mtime_ns for path in pool.path.rglob("*.tar")}
    assert "other scores: mine" in run(command("column:popularity"))
    assert {path: path.stat().st_mtime_ns for path in pool.path.rglob("*.tar")} == before
    popular = Pool.open(pool.path)
    assert popular.ranked_by == "popularity"
    assert popular.frame["score"].max() == 100
    assert popular.frame["score:mine"].notna().all()

    assert "ranked by the score of both; 300 pairs have one:" in run(command("popularity' --name both"))
    large = run(command("length(caption) > 5' --name large"))
    assert "computed: mine WHERE width > 16" in large
    run("data score pools/icons --with score:both")
    run(command("score:mine"))
    again = Pool.open(pool.path)
    assert again.frame.set_index("hash")["score"].to_dict() == mine.to_dict()
    assert "score:popularity" in again.index.columns


def test_columns_for_strategies_are_texts_of_a_table_and_the_embeddings_of_a_model(
    pool: Path, tmp_path: Path, run: Run
) -> None:
    mine = Pool.open(shutil.copytree(pool, tmp_path / "pool", ignore=shutil.ignore_patterns("evaluation")))
    table = mine.frame[["key"]].assign(recaption=[f"a  drawing\n{n}" if n else "" for n in range(mine.count)])
    model = build_model(load_architecture("mini-ViT-XXS-8").config)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    table.to_csv(tmp_path / "recaptions.csv", index=False)
    score, how = f"data score {mine.path}", f"mini-ViT-XXS-8:{tmp_path / 'model.pt'} --device cpu --workers 1"

    said = run(f"{score} --with column:recaption --metadata {tmp_path / 'recaptions.csv'} --column recaption")
    assert "columns for strategies: recaption\n" in said
    assert "columns for strategies: own_image, own_text, recaption" in run(
        f"{score} --with {how} --column own"
    )
    run(f"{score} --with {how} --name own")

    after = Pool.open(mine.path)
    texts = after.frame["recaption"]
    assert texts.isna().tolist() == [True] + [False] * (mine.count - 1)
    assert texts[1:].tolist() == [f"a drawing {n}" for n in range(1, mine.count)]
    image, text = (
        np.stack([np.frombuffer(each, np.float16) for each in after.frame[f"own_{side}"]]).astype(np.float32)
        for side in ("image", "text")
    )
    assert image.shape == (mine.count, 64)
    assert (image * text).sum(1) == pytest.approx(after.frame["score"].to_numpy(), abs=2e-3)
    cost = after.columns["own_image"].scorer
    assert cost == after.columns["own_text"].scorer == after.scores["own"].scorer
    assert cost is not None
    assert cost.scoring_flops > 0
    assert "--column stores" in run(f"{score} --with {how} --column own --name own", code=2)


_SCORES = """
import sys, time
from study.cli import main

def seconds(threads):
    if threads:
        torch.set_num_threads(threads)
    began = time.process_time()
    how = f"--name mine --device cpu --workers {threads or 1}"
    assert main(["data", "score", sys.argv[1], "--with", f"mini-ViT-XXS-8:{sys.argv[2]}", *how.split()]) == 0
    return time.process_time() - began

seconds(0)  # imports torch, after the command has set what torch reads then
import torch
print(seconds(1), seconds(2))
"""


def test_more_threads_take_no_more_processor_time(pool: Path, tmp_path: Path) -> None:
    shutil.copytree(pool, tmp_path / "pool")
    model = build_model(load_architecture("mini-ViT-XXS-8").config)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    words = [sys.executable, "-c", _SCORES, str(tmp_path / "pool"), str(tmp_path / "model.pt")]
    child = subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    one, two = map(float, child.stdout.split()[-2:])
    assert two < 2 * one, f"{two:.1f} s of processor time with two threads, {one:.1f} s with one"
