"""Images of evaluation sets are recognised when they were re-encoded, and not mistaken for other drawings."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from runners.data.build.thumbnail import ALIKE, SAME, EvaluationImages, file_hash, thumbnail_of
from runners.data.evaluation.evaluation_set import EvaluationSet, write_evaluation_set
from runners.embedded.bank import load_bank
from tests.runners.data.whole_set import write_plain_set

_SIDE = 96


def icon(concept: int) -> Image.Image:
    sprite = load_bank()[concept].training[0].full.convert("RGBA")
    white = Image.new("RGBA", sprite.size, "white")
    return Image.alpha_composite(white, sprite).convert("RGB").resize((_SIDE, _SIDE))


def line_art(concept: int, darkness: int) -> Image.Image:
    edges = np.asarray(icon(concept).convert("L").filter(ImageFilter.FIND_EDGES))[3:-3, 3:-3] > 40
    grey = np.pad(np.where(edges, 255 - darkness, 255), 3, constant_values=255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def changed(image: Image.Image) -> Iterator[Image.Image]:
    """Yields an image as other files have it."""
    for scale in (0.5, 0.75, 1.25, 1.5):
        yield encoded(image.resize((round(scale * _SIDE),) * 2), "JPEG", 85)
    for quality in (60, 75, 90):
        yield encoded(image, "JPEG", quality)
    yield encoded(image, "WEBP", 75)
    for edges in ((1, 0, 3, 2), (3, 3, 2, 4)):
        yield encoded(image.crop((edges[0], edges[1], _SIDE - edges[2], _SIDE - edges[3])), "JPEG", 85)


def encoded(image: Image.Image, kind: str, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, quality=quality)
    return Image.open(file)


def reasons(known: EvaluationImages, images: list[Image.Image]) -> list[str]:
    files = np.zeros(len(images), np.uint64)
    return [*known.reasons(files, [*map(thumbnail_of, images)])]


@pytest.mark.slow
@pytest.mark.parametrize("darkness", [0, 25, 60], ids=["icons", "pale lines", "lines"])
def test_images_of_a_set_are_found_in_other_files_and_other_drawings_are_not(
    tmp_path: Path, darkness: int
) -> None:
    images = [line_art(number, darkness) if darkness else icon(number) for number in range(len(load_bank()))]
    drawn = [image for image in images if (np.asarray(image) < 255).mean() > 0.04]
    inside, others = drawn[::2], drawn[1::2]
    assert len(others) > 30
    stacked = np.stack([np.asarray(image).transpose(2, 0, 1) for image in inside])
    names = tuple((f"number {number}",) for number in range(len(inside)))
    write_evaluation_set(tmp_path / "icons", EvaluationSet(images=stacked, captions=names))
    known = EvaluationImages([tmp_path / "icons"])

    found = [reasons(known, list(changed(image))) for image in inside]
    expected = [[f"{ALIKE}: {n:09d}.png of icons/test/0.tar"] * len(each) for n, each in enumerate(found)]
    assert np.mean(np.array(found) == np.array(expected)) >= 0.99
    assert np.mean([reason != "" for reason in reasons(known, others)]) <= 0.01
    assert reasons(known, inside[1:2]) == [f"{SAME}: 000000001.png of icons/test/0.tar"]


def test_a_file_that_cannot_be_decoded_is_recognised_by_its_bytes_alone(tmp_path: Path) -> None:
    write_plain_set(tmp_path / "ev")
    shard = tmp_path / "ev" / "test" / "0.tar"
    content = shard.read_bytes().replace(b"IHDR", b"IHDX")
    shard.write_bytes(content)
    image = content[512 : content.index(b"IEND") + 8]
    known = EvaluationImages([tmp_path / "ev"])
    flat = [thumbnail_of(Image.new("RGB", (16, 16), colour)) for colour in ("black", "white")]
    files = np.array([file_hash(image), 1], np.uint64)
    assert known.reasons(files, flat).tolist() == [f"{SAME}: 000000000.png of ev/test/0.tar", ""]
