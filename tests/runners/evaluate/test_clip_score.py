"""Scoring with open_clip's models: download of weights by tag, resumption, and cost."""

import io
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import open_clip.pretrained
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from budgets.machine_cache import CACHE
from runners.data.pool.pool import Pool
from runners.data.pool.shards import encode_image
from runners.embedded.embedded_pool import TrainingPairs
from runners.evaluate import clip_score
from runners.evaluate.clip_score import clip_scorer, clip_scores, scoring_source
from runners.models.export import CONFIG, write_architecture
from runners.models.load_model import ModelSource, load_model
from runners.store.location import Location
from runners.store.shared_folder import open_shared
from runners.trials.trial import run_trial
from tests.runners.data.images import write_pool
from tests.runners.data.indexed import indexed
from tests.runners.data.pool.test_pool import encoded, write_tar
from tests.runners.store.bucket import Bucket
from tests.runners.store.other_machines import OtherMachines
from tests.runners.tiny import tiny_job, tiny_pool, tiny_trial

pytestmark = pytest.mark.slow

MODEL = "ViT-S-32-alt"


@pytest.fixture
def small(tmp_path: Path) -> Pool:
    return write_pool(tmp_path / "pool", TrainingPairs(seed=4, count=10), None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a checkpoint."""
    folder = tmp_path_factory.mktemp("served")
    torch.save(open_clip.create_model(MODEL).state_dict(), folder / "weights.pt")
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_words: object) -> None:
        """Log nothing."""


@pytest.fixture
def address(weights: Path) -> Iterator[str]:
    """Serve the weights and return the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(weights))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def score(pool: Pool, pretrained: str) -> Any:  # noqa: ANN401 - an array
    source = ModelSource(checkpoint=pretrained, model=MODEL)
    return np.concatenate([*clip_scores(pool, source, device="cpu", report=lambda *_: None)[0]])


def test_weights_by_tag_are_downloaded_as_open_clip_does_and_score_like_their_file(
    small: Pool, weights: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where open_clip keeps what it downloads
    served = {"url": f"{address}/weights.pt"}
    tags = {"served": served, "quick": served | {"quick_gelu": True}, "gone": {"url": f"{address}/gone.pt"}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, MODEL, tags)  # noqa: SLF001 - as a release adds tags
    by_tag = score(small, "served")
    assert (tmp_path / ".cache" / "clip" / "weights.pt").is_file()
    assert np.array_equal(by_tag, score(small, str(weights / "weights.pt")))
    with pytest.raises(ValueError, match=r"gone .*HTTP Error 404"):
        score(small, "gone")
    quick = load_model(ModelSource(checkpoint="quick", model=MODEL), torch.device("cpu"))
    activations = {type(each).__name__ for each in quick.model.modules()} & {"GELU", "QuickGELU"}
    assert activations == {"QuickGELU"}


def test_images_are_scored_as_the_models_own_preprocessing_resizes_them(tmp_path: Path) -> None:
    wide = [
        (f"{n}", {"png": encoded(90, 30, "PNG", 40 * n), "txt": f"number {n}".encode()}) for n in range(4)
    ]
    edges = np.zeros((30, 90, 3), np.uint8)
    edges[:, :20] = edges[:, 70:] = 255  # what a centre crop cuts off
    wide.append(("9", {"png": encode_image(edges), "txt": b"edges"}))
    write_tar(tmp_path / "wide" / "0.tar", wide)
    pool = indexed(tmp_path / "wide")
    folder = tmp_path / "model"
    folder.mkdir()
    config = open_clip.get_model_config(MODEL)
    write_architecture(folder, MODEL, config, pixels={}, words=(), sigmoid_bias=False)
    facts = json.loads((folder / CONFIG).read_text()) | {"preprocess_cfg": {"resize_mode": "squash"}}
    (folder / CONFIG).write_text(json.dumps(facts))
    torch.manual_seed(0)
    torch.save(open_clip.create_model(MODEL).state_dict(), folder / "open_clip_pytorch_model.bin")

    source = ModelSource(checkpoint=str(folder), model="")
    scores = np.concatenate([*clip_scores(pool, source, device="cpu", report=lambda *_: None)[0]])

    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    network.eval()
    tokens = open_clip.get_tokenizer(MODEL)([text.decode() for _, each in wide for text in [each["txt"]]])
    images = torch.stack([preprocess(Image.open(io.BytesIO(each["png"])).convert("RGB")) for _, each in wide])
    with torch.no_grad():
        image, text = (
            network.encode_image(images, normalize=True),
            network.encode_text(tokens, normalize=True),
        )
    expected = (image * text).sum(1).numpy()
    assert scores == pytest.approx(
        expected[pool.frame["key"].map({key: n for n, (key, _) in enumerate(wide)})], abs=1e-5
    )


def test_interrupted_scoring_resumes_after_another_score_was_set(
    small: Pool, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score(small, str(weights / "weights.pt"))
    for part in (small.path / ".scoring").rglob("*.npy"):
        part.unlink()
    monkeypatch.setattr(clip_score, "_ROWS_PER_PART", 4)
    scored: list[int] = []
    original = clip_score._score  # noqa: SLF001 - counted, and stopped at

    def stops(loaded: Any, frame: Any, *rest: Any, **how: Any) -> Any:  # noqa: ANN401
        scored.append(len(frame))
        if len(scored) == 2:
            raise KeyboardInterrupt
        return original(loaded, frame, *rest, **how)

    monkeypatch.setattr(clip_score, "_score", stops)
    with pytest.raises(KeyboardInterrupt):
        score(small, str(weights / "weights.pt"))
    assert scored == [4, 4]
    assert score(small, str(weights / "weights.pt")) == pytest.approx(whole, abs=1e-6)
    assert scored == [4, 4, 4, 2]  # the first four not again
    monkeypatch.setattr(clip_score, "load_model", lambda *_: pytest.fail("loaded without need"))
    assert score(small, str(weights / "weights.pt")) == pytest.approx(whole, abs=1e-6)


def test_scoring_flops_equal_torchs_count() -> None:
    network = open_clip.create_model(MODEL)
    side, context = network.visual.image_size[0], network.context_length
    # Without gradients torch takes a fused path whose attention it does not count.
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counted,
    ):
        network.encode_image(torch.zeros(1, 3, side, side))
        network.encode_text(torch.zeros(1, context, dtype=torch.int64))
    scorer = clip_scorer("mine", open_clip.get_model_config(MODEL), 1000, model=MODEL)
    assert scorer.scoring_flops == 1000 * counted.get_total_flops()
    assert scorer.convention.startswith("2 x forward MACs")


def test_scorer_without_closed_form_says_not_counted() -> None:
    scorer = clip_scorer("mine", open_clip.get_model_config("coca_ViT-B-32"), 1000, model="coca")
    assert scorer.scoring_flops == 0
    assert scorer.convention.startswith("not counted: ")


def test_a_trials_weights_score_its_pool_also_on_nodes_that_share_only_a_url(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "driver").mkdir()
    pool = tiny_pool(tmp_path / "tiny")
    job = tiny_job(tiny_trial(), pool, tmp_path / "driver" / "trial")
    run_trial(job)
    scorer = f"{job.trial.cell.architecture}:{job.folder / 'weights.pt'}"
    opened = Pool.open(pool)
    stretches, config = clip_scores(
        opened, scoring_source(scorer, opened), device="cpu", report=lambda *_: None
    )
    expected = np.concatenate([*stretches])
    assert np.isfinite(expected).all()
    assert np.ptp(expected) > 0
    assert clip_scorer("own", config, opened.count, model="own").scoring_flops > 0

    monkeypatch.setenv(CACHE, str(tmp_path / "driver"))
    for path in filter(Path.is_file, pool.rglob("*")):
        Location(bucket.url).put(path, path.relative_to(pool).as_posix())
    with open_shared(bucket.url) as shared:
        opened = Pool.open(shared.path)
        scores, _ = clip_scores(
            opened,
            scoring_source(scorer, opened),
            device="cpu",
            shared=shared,
            workers=OtherMachines(tmp_path / "driver", tmp_path / "machine"),
            report=lambda *_: None,
        )
        assert np.array_equal(np.concatenate([*scores]), expected)
