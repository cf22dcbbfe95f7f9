"""``python -m study data`` on a real icon set: every command of docs/data.md, verbatim."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import webdataset
from PIL import Image

from budgets.hardware.machine_cache import CACHE
from runners.data.build.in_place import open_pool
from runners.data.evaluation.evaluation_set import EvaluationSet, write_evaluation_set
from runners.data.pool.pool import Pool
from runners.data.pool.samples import read_samples
from runners.data.pool.shards import close_shard, write_sample
from runners.embedded import scorer
from runners.host.storage import Storage
from runners.trials.trial import run_trial
from runners.trials.trial_job import TrialJob
from study.cli import main
from study.declare.load import load_declaration
from study.state.planning.plan_study import plan_study
from tests.root import ROOT
from tests.runners.data.images import read_images
from tests.runners.host.bucket import Bucket
from tests.study import shown
from tests.study.conftest import Run, study_in

pytestmark = pytest.mark.slow

COMMANDS = shown.commands("docs/data.md")
PAIRS = 300


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


def command(part: str) -> str:
    """Run the documented command that contains these words, with one worker process."""
    (found,) = (each for each in COMMANDS if part in each)
    return f"{found} --workers 1"


def test_a_folder_of_images_becomes_a_pool_and_invalid_files_are_counted(user: Path, run: Run) -> None:
    said = run(command("--from icons.csv"))
    assert said == (
        "pools/icons: 300 pairs; left out: 1 duplicate, 1 empty image file, 1 no caption, "
        "1 no such image file, 1 unreadable image\n"
    )
    pool = Pool.open(user / "pools" / "icons")
    assert pool.count == PAIRS
    first = pool.index.iloc[0]
    source = user / "png" / f"{first['caption'].removeprefix('an icon of ').replace(' ', '-')}.png"
    with Image.open(source) as image:
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(read_images(pool, np.array([0]), 48)[0], expected)
    assert (np.diff(pool.index["hash"].to_numpy().astype(object)) > 0).all()
    left_out = pd.read_parquet(pool.path / "left-out.parquet").set_index("reason")
    assert str(left_out.loc["no such image file", "shard"]).endswith("nowhere.png")
    assert not list((user / "pools").glob(".*"))


# webdataset leaves its shards to the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_what_was_built(user: Path, run: Run) -> None:
    run(command("--from icons.csv"))
    shards = [str(path) for path in (user / "pools" / "icons" / "shards").glob("*.tar")]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert [each["txt"] for each in samples] == Pool.open(user / "pools" / "icons").index["caption"].tolist()
    assert all(each["json"]["popularity"] >= 0 for each in samples)


def test_info_prints_counts_scores_and_reasons_and_draws_a_sheet(user: Path, run: Run) -> None:
    run(command("--from icons.csv"))
    run(command("column:popularity"))
    said = run(command("data info"))
    assert "pool icons: 300 pairs in 1 shards" in said
    assert "ranked by the score of popularity; 300 pairs have one:" in said
    assert "left out: 1 unreadable image" in said
    assert re.search(r"top20: 60 pairs from 8\d\.0000 up", said)
    assert re.search(r" 7\d\.\d+ to  +8\d\.\d+ +\d+  #+  < top20 begins\n", said)
    with Image.open(user / "icons.png") as sheet:
        assert sheet.size == (528, 1408)
        assert len(sheet.getcolors(1 << 16) or []) > 50


def test_a_pool_keeps_all_scores_and_the_chosen_one_ranks(
    user: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(command("--from icons.csv"))
    shallow = open_clip.get_model_config("ViT-S-32-alt")
    shallow["vision_cfg"]["layers"] = shallow["text_cfg"]["layers"] = 1
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-S-32-alt", shallow)  # noqa: SLF001 - restored
    model = open_clip.create_model("ViT-S-32-alt")
    torch.save(model.state_dict(), user / "checkpoint.pt")
    run(command("checkpoint.pt"))
    pool = Pool.open(user / "pools" / "icons")
    mine = pool.index.set_index("hash")["score"]
    # The same similarity by open_clip's own preprocessing and tokenizer.
    loaded, _, preprocess = open_clip.create_model_and_transforms(
        "ViT-S-32-alt", pretrained=str(user / "checkpoint.pt")
    )
    loaded.eval()
    row = pool.index.iloc[5]
    name = row["caption"].removeprefix("an icon of ").replace(" ", "-")
    with Image.open(user / "png" / f"{name}.png") as image, torch.no_grad():
        one = loaded.encode_image(preprocess(image)[None], normalize=True)
        text = loaded.encode_text(open_clip.get_tokenizer("ViT-S-32-alt")([row["caption"]]), normalize=True)
    assert row["score"] == pytest.approx(float((one * text).sum()), abs=1e-5)

    before = {path: path.stat().st_mtime_ns for path in pool.path.rglob("*.tar")}
    assert "other scores: mine" in run(command("column:popularity").replace("--rewrite-shards", ""))
    assert {path: path.stat().st_mtime_ns for path in pool.path.rglob("*.tar")} == before
    popular = Pool.open(pool.path)
    assert popular.origin.scorer is not None
    assert popular.origin.scorer.name == "popularity"
    assert popular.index["score"].max() == 100
    assert popular.index["score:mine"].notna().all()

    run(command("column:popularity"))  # with --rewrite-shards
    rewritten = Pool.open(pool.path)
    assert (np.diff(rewritten.index["bin"]) >= 0).all()
    assert not (np.diff(popular.index["bin"]) >= 0).all()
    assert sorted(rewritten.index["hash"]) == sorted(popular.index["hash"])
    assert not list(pool.path.parent.glob(".*"))
    assert rewritten.left_out == pool.left_out
    assert len(read_images(rewritten, np.arange(PAIRS), 48)) == PAIRS  # held to their hashes

    assert "ranked by the score of both; 300 pairs have one:" in run(command("popularity' --name both"))
    large = run(command("caption.str.len() > 5' --name large"))
    assert "computed: mine if width > 16" in large
    run("data score pools/icons --with score:both")
    run(command("score:mine"))
    again = Pool.open(pool.path)
    assert again.index.set_index("hash")["score"].to_dict() == mine.to_dict()
    assert "score:popularity" in again.columns


def test_rebuilt_shards_leave_out_images_of_evaluation_sets(user: Path, run: Run) -> None:
    run(command("--from icons.csv"))
    shutil.copytree(user / "pools" / "icons" / "shards", user / "my-shards")
    write_retrieval_set(user / "sets" / "icons", user / "my-shards" / "00000.tar")
    said = run(command("--without"))
    assert said == (
        "pools/web: 260 pairs; left out: 20 in an evaluation set, "
        "20 nearly the same as an image of an evaluation set\n"
    )
    out = pd.read_parquet(user / "pools" / "web" / "left-out.parquet").set_index("key")["reason"]
    assert out[[f"{n:09d}" for n in range(20)]].unique().tolist() == ["in an evaluation set"]

    uids = sorted(int(uid, 16) for uid in Pool.open(user / "pools" / "web").index["uid"])[:25]
    np.save(user / "subset.npy", np.array([(0, uid) for uid in uids], np.dtype("u8,u8")))
    assert "named subset basic: 25 pairs" in run(command("subset.npy"))
    rows = Pool.open(user / "pools" / "web").subset(size=None, quality="basic").rows()
    found = Pool.open(user / "pools" / "web").index["uid"].iloc[rows]
    assert sorted(int(uid, 16) for uid in found) == uids

    before = (user / "my-shards" / "00000.tar").read_bytes()
    assert "my-shards: 300 pairs; left out: none" in run(command("data build my-shards"))
    assert (user / "my-shards" / "00000.tar").read_bytes() == before
    assert open_pool(user / "my-shards").count == PAIRS

    said = run("data score my-shards --with column:popularity --rewrite-shards", code=2)
    assert "shards in my-shards were not written by `data build`" in said
    assert (user / "my-shards" / "00000.tar").read_bytes() == before


def test_shards_in_a_bucket_are_indexed_scored_and_shown(
    user: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(user / "cache"))
    run(command("--from icons.csv"))
    built = Pool.open(user / "pools" / "icons")
    bucket = Bucket(monkeypatch, "bucket")
    try:
        Storage("s3://bucket").put(built.path / "shards" / "00000.tar", "shards/00000.tar")

        assert "pools/theirs: 300 pairs; left out: none" in run(command("pools/theirs --from"))

        said = run("data score pools/theirs --with column:popularity --name popular")
        assert "shards at: s3://bucket/shards" in said
        assert "ranked by the score of popular; 300 pairs have one:" in said
        theirs = Pool.open(user / "pools" / "theirs")
        assert theirs.shards == {"00000.tar": built.shards["shards/00000.tar"]}
        assert sorted(theirs.index["hash"]) == sorted(built.index["hash"])
        assert sorted(path.name for path in theirs.path.iterdir()) == ["index", "pool.json", "vocabulary.txt"]
        refused = run("data score pools/theirs --with column:popularity --rewrite-shards", code=2)
        assert "were not written by `data build` and are not rewritten" in refused
        assert "holds no .tar shard" in run("data build pools/x --from s3://bucket/no --in-place", code=2)
        assert "s3://bucket/shards has no pool.json" in run("data info s3://bucket/shards", code=2)

        assert "s3://bucket/pool: 300 pairs; left out: none" in run(
            command("s3://bucket/pool --from s3://bucket/shards")
        )
        assert "s3://bucket/shards: 300 pairs" in run(command("build s3://bucket/shards --in-place"))
        said = run("data score s3://bucket/pool --with column:popularity --name popular")
        assert "ranked by the score of popular; 300 pairs have one:" in said
        assert run("data info s3://bucket/pool --workers 1") == said
        exists = run("data build s3://bucket/pool --from s3://bucket/other --workers 1", code=2)
        assert exists.startswith("study: s3://bucket/other holds no .tar shard")
        table = run("data build s3://bucket/new --from icons.csv --workers 1")
        assert table.startswith("s3://bucket/new: 300 pairs; left out: ")

        write_retrieval_set(user / "cards", built.path / "shards" / "00000.tar")
        for file in filter(Path.is_file, (user / "cards").rglob("*")):
            Storage("s3://bucket").put(file, f"sets/wds_cards/{file.relative_to(user / 'cards').as_posix()}")
        said = run("data eval-sets s3://bucket/sets --workers 1")
        assert said.startswith("cards: retrieval, 40 images, ")
        assert "in s3://bucket/sets/wds_cards\n" in said
        assert "s3://bucket/none can't be read: no file is below" in run(
            "data eval-sets s3://bucket/none", code=2
        )
        assert "s3://misspelt/sets can't be read: The specified bucket does not exist" in run(
            "data eval-sets s3://misspelt/sets", code=2
        )
    finally:
        bucket.go_away()


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


def test_a_stopped_build_continues_and_gives_the_same_bytes(user: Path, run: Run) -> None:
    run(command("--from icons.csv"))
    whole = (user / "pools" / "icons" / "shards" / "00000.tar").read_bytes()
    index = (user / "pools" / "icons" / "index/00000.parquet").read_bytes()
    shutil.rmtree(user / "pools")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runners.data.build.new_shards.write_sample", _stop)
        with pytest.raises(RuntimeError, match="stopped"):
            main(shlex.split(command("--from icons.csv")))
    assert not (user / "pools" / "icons").exists()
    parts = {path: path.stat().st_mtime_ns for path in (user / "pools").rglob("parts/*")}
    assert parts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runners.data.build.scan.pairs_of", _stop)  # what was read is not read again
        run(command("--from icons.csv"))
    assert (user / "pools" / "icons" / "shards" / "00000.tar").read_bytes() == whole
    assert (user / "pools" / "icons" / "index/00000.parquet").read_bytes() == index


def test_a_build_that_is_killed_again_and_again_ends_with_the_same_bytes(user: Path, run: Run) -> None:
    run(command("--from icons.csv"))
    pool = user / "pools" / "icons"
    whole = {path.relative_to(pool): path.read_bytes() for path in pool.rglob("*") if path.is_file()}
    shutil.rmtree(user / "pools")
    work = user / "pools" / ".icons.building"
    words = [sys.executable, "-m", "study", *shlex.split(command("--from icons.csv"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # Killed when it begins, when the source is read, and while it writes.
    for reached in ("source", "parts/000000.parquet", "pool/shards/*"):
        with subprocess.Popen(words, cwd=user, env=environment, stdout=subprocess.DEVNULL) as process:
            until = time.monotonic() + 60
            while not list(work.glob(reached)) and process.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
            process.kill()
    if not pool.exists():
        run(command("--from icons.csv"))
    assert {path.relative_to(pool): path.read_bytes() for path in pool.rglob("*") if path.is_file()} == whole


def _stop(*_words: object) -> None:
    raise RuntimeError("stopped")


def test_several_workers_build_the_same_pool(user: Path, run: Run) -> None:
    run(command("--from icons.csv"))
    run("data build pools/icons2 --from icons.csv --workers 2")
    one, two = (Pool.open(user / "pools" / name) for name in ("icons", "icons2"))
    assert one.fingerprint == two.fingerprint
    assert (one.path / "shards/00000.tar").read_bytes() == (two.path / "shards/00000.tar").read_bytes()


def test_the_embedded_pool_is_built_by_command(user: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "SAMPLES", 1024)  # little training: the scores themselves do not matter
    said = run(command("embedded:256"))
    assert "256 pairs; left out: none" in said
    assert Pool.open(user / "pools" / "emoji").scored


def test_evaluation_sets_are_checked_against_the_papers_suite(user: Path, run: Run) -> None:
    images = np.zeros((4, 3, 8, 8), np.uint8)
    good = EvaluationSet(
        images=images, labels=np.array([0, 1, 0, 1]), classnames=("a", "b"), templates=("a photo of {c}",)
    )
    write_evaluation_set(user / "sets" / "imagenet1k", good)
    said = run(command("eval-sets"))
    assert "imagenet1k: classification, 4 images, 2 texts, in sets/imagenet1k" in said
    assert "imagenet1k has 4 images; the full ImageNet has 50,000" in said
    assert "missing of the paper's suite: ObjectNet (objectnet)" in said
    (user / "sets" / "imagenet1k" / "classnames.txt").write_text("a\n")
    assert main(["data", "eval-sets", "sets"]) == 1


def test_a_trial_trains_on_a_users_pool(user: Path, run: Run) -> None:
    run(command("--from icons.csv"))
    run(command("column:popularity"))
    shutil.copytree(user / "pools" / "icons" / "shards", user / "sets" / "icons")
    study = """
study: icons
pool: {path: pools/icons}
evaluation: {icons: sets/icons}
metric: icons/image_to_text_r1
budget: {levels: [5 GFLOP], study: 1 TFLOP}
grid: [{architectures: [mini-ViT-XXS-8], quality: [top40, all]}]
training: {batch_size: 16, lr_peak: {mini-ViT-XXS-8: 2e-3}}
"""
    (user / "icons.yaml").write_text(study, encoding="utf-8")
    declaration = load_declaration(user / "icons.yaml")
    declared = study_in(declaration=declaration, folder=user / "results", pools=user / "pools")
    plan = plan_study(declared)
    assert [trial.cell.subset_size for trial in plan.trials] == [120, 300]
    late = user / "pools" / "icons" / "late.tar"
    shutil.copy(user / "sets" / "icons" / "00000.tar", late)
    with pytest.raises(
        ValueError, match=r"1 tars in .*pools/icons are not in its index, the first is late\.tar"
    ):
        plan_study(declared)
    assert "late.tar; `python -m study data build pools/icons --in-place` takes" in run(command("data info"))
    late.unlink()
    trial = plan.trials[0]
    job = TrialJob(
        trial=trial,
        pools=(declared.pool_folders[""],),
        evaluation=declared.evaluation,
        folder=user / "trial",
        cpus=1,
        gpus=0,
        checkpoint_s=60,
        loader_bytes=2**28,
    )
    outcome = run_trial(job)
    assert outcome.row["status"] == "finished"
    assert outcome.row["samples_seen"] == trial.samples_seen
    assert outcome.timing["damaged_pairs"] == 0
    assert outcome.row["train_loss"] < np.log(16)  # better than chance among 16
    assert not (user / "trial" / "damage.jsonl").exists()

    pool = Pool.open(declared.pool_folders[""])
    row = pool.index.iloc[pool.subset(size=None, quality="top40").rows()[7]]
    content = bytearray((pool.path / row["shard"]).read_bytes())
    content[row["offset"] + row["length"] // 2] ^= 1
    (pool.path / row["shard"]).write_bytes(content)
    with pytest.raises(ValueError, match=rf"1 of 120 pairs are damaged, .* 0\.10% .*{row['key']} of shard"):
        run_trial(replace(job, folder=user / "strict"))
    borne = run_trial(replace(job, folder=user / "borne", damage_tolerance=0.01))
    assert borne.row["samples_seen"] == trial.samples_seen
    assert borne.timing["damaged_pairs"] == 1
    assert f'"key": "{row["key"]}"' in (user / "borne" / "damage.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data build pools/x --from nowhere", "no such source: nowhere"),
        ("data build pools/x", "--from SOURCE, or --in-place"),
        ("data build pools/x --from icons.csv --caption captoin", "did you mean 'caption'"),
        ("data build pools/x --from embedded:many", "embedded:many needs a number of pairs"),
        ("data build png --from icons.csv", "png already exists"),
        ("data info pools/x", "no such pool"),
        (
            "data eval-sets gs://bucket/sets",
            "gs://bucket/sets can't be read: storage gs://bucket/sets needs a package",
        ),
        ("data eval-sets nowhere", "no folder of evaluation sets at nowhere"),
    ],
)
def test_a_mistake_ends_with_one_line_and_code_2(user: Path, run: Run, words: str, message: str) -> None:
    assert user.is_dir()
    said = run(words if "eval" in words else f"{words} --workers 1", code=2)
    assert message in said
    assert len(said.splitlines()) == 1


def test_every_command_of_the_documentation_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    download = (Path(__file__).parent / "test_download.py").read_text(encoding="utf-8")
    parts = re.findall(r'command\("([^"]+)"\)', text + download)
    assert {each for each in COMMANDS for part in parts if part in each} == set(COMMANDS)
