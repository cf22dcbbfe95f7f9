"""Evaluation sets are read back as written, have CLIP_benchmark's layout, and are disjoint from training."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runners.data.build.source import shards_of
from runners.data.evaluation.evaluation_set import (
    describe_evaluation_set,
    split_shards,
    write_evaluation_set,
)
from runners.data.evaluation.evaluation_suite import found_sets
from runners.data.pool.pool import Pool
from runners.data.pool.shards import encode_image
from runners.data.pool.tokenizer import tokenizer
from runners.embedded.bank import load_bank
from runners.embedded.embedded_pool import (
    EVALUATION_SIZES,
    TrainingPairs,
    build_embedded_pool,
    evaluation_counts,
    evaluation_set,
)
from tests.runners.data.pool.test_pool import write_tar
from tests.runners.data.whole_set import whole_set, write_plain_set


@pytest.mark.parametrize("name", ["held-out", "seen", "style", "validation"])
def test_zero_shot_sets_are_read_back_balanced_over_100_classes(
    evaluation: Path, evaluation_sizes: dict[str, int], name: str
) -> None:
    data = whole_set(evaluation / name, 32)
    count = evaluation_sizes[name]
    assert data.images.shape == (count, 3, 32, 32)
    assert data.labels is not None
    assert np.bincount(data.labels).tolist() == [count // 100] * 100
    assert data.classnames == tuple(concept.name for concept in load_bank())
    assert "a picture of a {c}" in data.templates
    assert data.captions is None


def test_a_written_set_is_read_back_to_the_pixel(tmp_path: Path) -> None:
    data = evaluation_set("seen", 120)
    write_evaluation_set(tmp_path / "seen", data)
    read = whole_set(tmp_path / "seen", 32)
    assert np.array_equal(read.images, data.images)
    assert read.labels is not None
    assert data.labels is not None
    assert np.array_equal(read.labels, data.labels)


def test_retrieval_has_one_true_caption_an_image_and_none_twice(evaluation: Path) -> None:
    data = whole_set(evaluation / "retrieval", 32)
    assert data.labels is None
    assert data.captions is not None
    assert {len(captions) for captions in data.captions} == {1}
    assert len(set(data.captions)) == len(data.images) == 64
    declared = evaluation_set("retrieval", EVALUATION_SIZES["retrieval"]).captions
    assert declared is not None
    assert len(set(declared)) == 512


def test_several_captions_per_image_are_stored_one_per_line(tmp_path: Path) -> None:
    captions = (("one", "two words"), ("three",))
    write_plain_set(tmp_path / "r", captions)
    assert whole_set(tmp_path / "r", 8).captions == captions
    facts = describe_evaluation_set(tmp_path / "r")
    assert (facts.images, facts.texts) == (2, 3)
    assert facts.metrics[::3] == ("image_to_text_r1", "text_to_image_r1")


def test_folder_of_captioned_shards_is_a_retrieval_set(pool: Pool) -> None:
    data = whole_set(pool.path / "shards", 32)

    assert data.labels is None
    assert data.captions is not None
    assert [captions[0] for captions in data.captions] == pool.frame["caption"].tolist()
    facts = describe_evaluation_set(pool.path / "shards")
    assert (facts.images, facts.texts) == (pool.count, pool.count)


def test_hidden_tars_are_not_shards_of_a_retrieval_set_but_tars_in_capitals_are(
    pool: Pool, tmp_path: Path
) -> None:
    shard = next((pool.path / "shards").glob("*.tar")).read_bytes()
    for name in ("a/0.TAR", "a/.old/1.tar", "a/._0.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(shard)
    assert found_sets(tmp_path) == {"a": str(tmp_path / "a")}
    assert split_shards(tmp_path / "a", "test") == [tmp_path / "a" / "0.TAR"]


def test_held_out_sets_show_no_training_drawing_and_validation_shares_them_in_other_scenes() -> None:
    held_out, validation, seen = (
        evaluation_set(name, 100).images for name in ("held-out", "validation", "seen")
    )
    assert not (held_out == validation).all(axis=(1, 2, 3)).any()
    assert not (held_out == seen).all(axis=(1, 2, 3)).any()


def test_no_evaluation_image_is_a_training_image_of_the_same_seed() -> None:
    training = {pair.image.tobytes() for pair in TrainingPairs(seed=0, count=500)}
    seen = evaluation_set("seen", 500, seed=0).images.transpose(0, 2, 3, 1)
    assert not training & {np.ascontiguousarray(image).tobytes() for image in seen}


def test_all_embedded_pools_share_their_evaluation_sets(pool: Pool, tmp_path: Path) -> None:
    sizes = {"held-out": 200}
    other = build_embedded_pool(tmp_path / "p", pairs=7, seed=99, score=None, evaluation_sizes=sizes)
    shard = Path("evaluation") / "held-out" / "test" / "0.tar"
    assert (other.path / shard).read_bytes() == (pool.path / shard).read_bytes()


def test_counts_are_known_without_making_the_sets(evaluation: Path, evaluation_sizes: dict[str, int]) -> None:
    counts = evaluation_counts(evaluation_sizes)
    assert counts["held-out"] == (200, 500)
    assert counts["retrieval"] == (64, 64)
    for name, count in counts.items():
        facts = describe_evaluation_set(evaluation / name)
        assert (facts.images, facts.texts) == count


@pytest.mark.slow
def test_a_pools_words_cover_the_prompts_of_its_evaluation(tmp_path: Path) -> None:
    pool = build_embedded_pool(tmp_path / "p", pairs=2000, seed=0, score=None, evaluation_sizes={"seen": 100})
    data = whole_set(pool.path / "evaluation" / "seen", 32)
    prompts = [template.format(c=name) for template in data.templates for name in data.classnames]
    tokens = tokenizer(512, 16, pool.vocabulary)(prompts)
    assert (tokens != 510).all()
    assert tokens.argmax(axis=1).max() < 15


def test_missing_set_raises(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"nowhere is not an evaluation set: it has neither .*nshards\.txt nor.* dataset_type\.txt",
    ):
        whole_set(tmp_path / "nowhere", 32)


def test_a_set_of_captions_without_its_type_is_an_error_that_says_what_to_write(tmp_path: Path) -> None:
    write_plain_set(tmp_path / "s")
    (tmp_path / "s" / "dataset_type.txt").unlink()
    with pytest.raises(ValueError, match=r"write the word retrieval into .*s/dataset_type\.txt"):
        describe_evaluation_set(tmp_path / "s")


@pytest.fixture
def own_set(tmp_path: Path) -> Path:
    write_evaluation_set(tmp_path / "s", evaluation_set("seen", 100))
    return tmp_path / "s"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("zeroshot_classification_templates.txt", "a photo\n", r"'a photo' needs \{c\} for the class name"),
        ("zeroshot_classification_templates.txt", "a {c} in {place}\n", r"and no other braces"),
        ("zeroshot_classification_templates.txt", "\n", r"needs lines in .*templates\.txt, which is empty"),
        ("zeroshot_classification_templates.txt", "\xe9", r"templates\.txt is not UTF-8"),
        ("classnames.txt", "dog\ncat\n\n \n", r"its label '2' is outside the 2 classes"),
        ("classnames.txt", "dog\n\ncat\n", r"classnames\.txt:2: the line is empty; label 1 needs a name"),
        ("classnames.txt", None, r"needs .*classnames\.txt, which is missing"),
        ("classnames.txt", "", r"needs lines in .*classnames\.txt, which is empty"),
        ("test/nshards.txt", "1000000000\n", r"says '1000000000' shards, but .* holds 1 tars"),
        ("test/nshards.txt", "9" * 5000, r"says '9{20}' shards, but"),
        ("test/nshards.txt", "some", r"says 'some' shards, but"),
        ("test/nshards.txt", "0", r"says '0' shards, but"),
    ],
)
def test_faults_of_a_set_are_found_before_anything_trains(
    own_set: Path, file: str, content: str | None, message: str
) -> None:
    (own_set / file).unlink()
    if content is not None:
        (own_set / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        describe_evaluation_set(own_set)


def test_shards_whose_numbers_are_padded_with_zeros_are_read_by_number(own_set: Path) -> None:
    facts = describe_evaluation_set(own_set)
    shard = (own_set / "test" / "0.tar").rename(own_set / "test" / "00.tar")
    assert describe_evaluation_set(own_set) == facts
    (own_set / "test" / "nshards.txt").write_text("11")
    for number in range(1, 11):
        (own_set / "test" / f"{number:0{2 if number < 10 else 3}d}.tar").write_bytes(shard.read_bytes())
    assert [int(each.stem) for each in split_shards(own_set, "test")] == list(range(11))
    assert describe_evaluation_set(own_set).images == 11 * facts.images


@pytest.mark.parametrize("names", [("1.tar",), ("00.tar", "0.tar"), ("0.tar", "2.tar")])
def test_shards_with_a_number_missing_or_twice_are_refused(own_set: Path, names: tuple[str, ...]) -> None:
    shard = (own_set / "test" / "0.tar").rename(own_set / "shard")
    for name in names:
        (own_set / "test" / name).write_bytes(shard.read_bytes())
    (own_set / "test" / "nshards.txt").write_text(str(len(names)))
    expected = len(names) - 1
    with pytest.raises(ValueError, match=rf"{names[-1]}: expected number {expected}:"):
        describe_evaluation_set(own_set)


def test_hole_in_a_set_and_image_without_header_are_found_before_anything_trains(own_set: Path) -> None:
    shard = own_set / "test" / "0.tar"
    sound = shard.read_bytes()
    shard.write_bytes(sound[:51_200] + bytes(102_400) + sound[153_600:])
    with pytest.raises(ValueError, match=r"cannot read shard .*0\.tar after sample 0000000.*: bytes"):
        describe_evaluation_set(own_set)
    shard.write_bytes(sound.replace(b"\x89PNG", b"\x89PGN", 1))
    with pytest.raises(ValueError, match=r"image 000000000 of .*: unreadable image"):
        describe_evaluation_set(own_set)


def test_sets_below_a_folder_are_named_without_wds_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("wds_imagenet-a", "vtab/wds_cars"):
        (tmp_path / "sets" / name / "test").mkdir(parents=True)
        (tmp_path / "sets" / name / "test" / "0.tar").touch()
    assert list(found_sets(str(tmp_path / "sets"))) == ["vtab_cars", "imagenet-a"]
    assert list(found_sets(str(tmp_path / "sets" / "wds_imagenet-a"))) == ["imagenet-a"]

    (tmp_path / "sets" / "vtab_cars" / "test").mkdir(parents=True)
    (tmp_path / "sets" / "vtab_cars" / "test" / "0.tar").touch()
    with pytest.raises(ValueError, match=r"are both called 'vtab_cars'; rename one of them"):
        found_sets(str(tmp_path / "sets"))


def test_every_folder_of_shards_is_a_set_or_part_of_one(tmp_path: Path) -> None:
    for name in (
        "wds_a/test/nshards.txt",
        "wds_a/test/0.tar",
        "wds_a/train/0.tar",
        "without_count/test/0.tar",
        "typed/dataset_type.txt",
        "heldout/heldout-00000.tar",
        "heldout/more/00001.tar",
        "retrieval/of/icons/0.tar",
        ".hidden/0.tar",
        "archive-of-a.tar",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert found_sets(tmp_path) == {
        name: str(tmp_path / folder)
        for name, folder in {
            "heldout": "heldout",
            "retrieval_of_icons": "retrieval/of/icons",
            "typed": "typed",
            "a": "wds_a",
            "without_count": "without_count",
        }.items()
    }
    assert list(found_sets(tmp_path / "heldout", tmp_path / "wds_a")) == ["heldout", "a"]
    (tmp_path / "without_count" / "dataset_type.txt").write_text("retrieval\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"without_count/test/nshards\.txt is missing: the number of shards"):
        describe_evaluation_set(tmp_path / "without_count")
    (tmp_path / "retrieval/of/empty").mkdir()
    with pytest.raises(ValueError, match=r"retrieval/of/empty holds no evaluation set: .*test/0\.tar"):
        found_sets(str(tmp_path / "retrieval/of/empty"))


def test_captions_of_held_out_shards_may_be_in_their_json(tmp_path: Path) -> None:
    image = encode_image(np.zeros((8, 8, 3), np.uint8))
    facts = (b'{"caption": "a red\\n fox"}', b'{"caption": "a blue fox"}')
    write_tar(tmp_path / "0.tar", [(str(n), {"png": image, "json": each}) for n, each in enumerate(facts)])

    assert whole_set(tmp_path, 8).captions == (("a red fox",), ("a blue fox",))


def test_sets_are_found_through_links_to_folders(tmp_path: Path) -> None:
    split = tmp_path / "elsewhere" / "split"
    split.mkdir(parents=True)
    (split / "0.tar").touch()
    one = tmp_path / "sets" / "wds_one"
    one.mkdir(parents=True)
    (one / "test").symlink_to(split)
    (one / "around").symlink_to(tmp_path / "sets")
    (tmp_path / "sets" / "two").symlink_to(one)

    assert list(found_sets(one)) == ["one"]
    assert set(found_sets(str(tmp_path / "sets"))) == {"one", "two"}


@pytest.mark.parametrize("find", [lambda place: found_sets(str(place)), shards_of], ids=["sets", "pairs"])
def test_a_folder_that_cannot_be_read_is_named_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: Callable[[Path], object]
) -> None:
    for name in ("open", "locked"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.tar").touch()
    scan = os.scandir

    def as_another_user(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", as_another_user)
    with pytest.raises(ValueError, match=r"cannot read folder .*locked: Permission denied$"):
        find(tmp_path)
