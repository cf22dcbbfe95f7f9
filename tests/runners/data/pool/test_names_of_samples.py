"""Each sample of a tar is used or listed, whatever its members are called."""

import io
import subprocess
import tarfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.data.pool.damage import Damage
from runners.data.pool.samples import Sample, walk_samples
from runners.data.pool.shards import entries_of
from tests.runners.data.pool.test_pool import encoded

Files = Sequence[tuple[str, bytes]]

PAIRS_OF_ODD_NAMES = {
    "several dots": [f"img.{n}" for n in range(10)],
    "several dots, one without": ["img", *(f"img.{n}" for n in range(1, 10))],
    "one without comes last": [*(f"img.{n}" for n in range(1, 10)), "img"],
    "versions": [f"v1.{n}.{n % 3}" for n in range(9)],
    "decimals": ["0.5", "0.25", "1.5", "1e3", "7"],
    "dots side by side": ["a..1", "a..2", "a.", "a...", "a"],
    "begin with a dot": [".1", ".2", "..3", ".4.5", ".hidden"],
    "dot alone": ["", ".", "sub/", "sub/."],
    "folders with dots": ["a.b/1", "a.b/2", "./1", "./2.5", "../x", "/y", "a/b.c/.1"],
    "copies": ["photo (1)", "photo (2)", "photo.1 copy", "photo.2 copy", "a b.c d"],
    "letters": ["\u00e9", "e\u0301", "日本.1", "日本.2", "😀", "a\nb", "a\tb.c", "ß.SS", "ß.ss"],
    "kinds as names": ["jpg", "txt", "a.jpg", "a.txt", "b.json", "png.png", "x.tar"],
    "upper case": ["A", "a", "A.B", "A.b", "a.B"],
    "long": ["x" * 120 + ".1", "x" * 120 + ".2", "y" * 90 + "/" + "z" * 90],
    "as metadata": ["__key__", "__a__.1", "README", "Thumbs.db"],
}


@cache
def image(number: int) -> bytes:
    return encoded(8 + number, 8, "PNG", number)


def write(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def pairs(names: Sequence[str], image_ending: str = "png", text_ending: str = "txt") -> Files:
    return [
        file
        for number, name in enumerate(names)
        for file in (
            (f"{name}.{image_ending}", image(number)),
            (f"{name}.{text_ending}", f"{number}".encode()),
        )
    ]


def accounts(path: Path) -> tuple[list[str], list[str]]:
    """Return the captions of the pairs that are used, and the keys of the samples that are left out."""
    entries = list(entries_of(path, "0.tar", score_field="similarity"))
    listed = [entry.key for entry in entries if isinstance(entry, Damage)]
    return [entry[0].caption for entry in entries if not isinstance(entry, Damage)], listed


@pytest.mark.parametrize("order", ["written", "sorted"])
@pytest.mark.parametrize("endings", [("png", "txt"), ("JPG", "TXT"), ("webp", "txt")], ids="/".join)
@pytest.mark.parametrize("names", PAIRS_OF_ODD_NAMES.values(), ids=PAIRS_OF_ODD_NAMES)
def test_pairs_of_any_name_are_used(
    tmp_path: Path, names: list[str], endings: tuple[str, str], order: str
) -> None:
    files = pairs(names, *endings)
    path = write(tmp_path / "0.tar", sorted(files) if order == "sorted" else files)
    used, listed = accounts(path)
    assert (sorted(used), listed) == (sorted(map(str, range(len(names)))), [])


def test_pairs_of_a_tar_that_tar_made_of_a_folder_are_used(tmp_path: Path) -> None:
    names = ["a", "a.1", "a.2", ".b", "c d", "é.1", "É.2", "sub.1/a", "sub.1/b.c", "sub.1/.d"]
    for name, content in [*pairs(names, "PNG"), ("README", b"about"), (".DS_Store", b"words")]:
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_bytes(content)
    archive = [
        "/usr/bin/env",
        "tar",
        "--sort=name",
        "-cf",
        str(tmp_path / "0.tar"),
        "-C",
        str(tmp_path / "x"),
        ".",
    ]
    subprocess.run(archive, check=True)
    used, listed = accounts(tmp_path / "0.tar")
    assert (sorted(used), listed) == (sorted(map(str, range(len(names)))), [])


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["1", "2", ".3", "a b", "é", "x/4"], ["1", "2", ".3", "a b", "é", "x/4"]),
        (["a.1.png", "a.2.png", "a.3.png"], ["a.1", "a.2", "a.3"]),
        (["a.1.txt", "a.2.txt"], ["a.1", "a.2"]),
        ([".a.txt", ".b.png"], [".a", ".b"]),
        (["a.png", "b", "b.txt", "c."], ["a", "b", "c"]),
        (["a", "a", "a."], ["a", "a", "a"]),
        (["._a.png", "._a.npy", "a.txt", "._b.1.png"], ["._a", "a", "._b.1"]),
        (["a.1.png", "a.txt", "a.1.json"], ["a", "a.1"]),
        (["x/", "x/.png"], ["x/."]),
    ],
)
def test_members_that_make_no_pair_are_listed_by_their_names(
    tmp_path: Path, names: list[str], keys: list[str]
) -> None:
    contents = {"txt": b"words", "json": b"{}"}  # all others are images
    files = [(name, contents.get(name.rpartition(".")[2], image(0))) for name in names if name[-1] != "/"]
    path = write(tmp_path / "0.tar", files)
    used, listed = accounts(path)
    assert (used, sorted(listed)) == ([], sorted(keys))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("others", [["seg.png"], ["clip.npy", "meta.json"], ["0.png", "1.png", "seg.npy"]])
def test_other_members_of_a_webdataset_sample_are_no_samples(
    tmp_path: Path, others: list[str], order: int
) -> None:
    endings = ["png", "txt", *others]
    contents = {"png": image(1), "txt": b"words", "json": b"{}", "npy": b"numbers"}
    files = [
        (f"{key}.{ending}", contents[ending.rpartition(".")[2]])
        for key in ("a", "b")
        for ending in sorted(endings)[::order]
    ]
    path = write(tmp_path / "0.tar", files)
    assert accounts(path) == (["words"] * 2, [])
    samples = [span for span in walk_samples(path) if isinstance(span, Sample)]
    assert [(sample.key, set(sample.members)) for sample in samples] == [(k, set(endings)) for k in "ab"]


@pytest.mark.parametrize(
    "content", [b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", b"words", "é".encode(), b""]
)
@pytest.mark.parametrize("name", ["._{}", "README", ".DS_Store", "x/LICENSE", "x/._{}", "notes."])
def test_files_that_belong_to_no_sample_part_none(tmp_path: Path, name: str, content: bytes) -> None:
    files = [
        entry
        for member, whole in pairs(["1", "a.2", ".3"])
        for entry in ((name.format(member), content), (member, whole))
    ]
    assert accounts(write(tmp_path / "0.tar", files)) == (["0", "1", "2"], [])


@pytest.mark.parametrize("length", [1, 2, 9])
def test_shard_of_files_that_belong_to_no_sample_is_listed(tmp_path: Path, length: int) -> None:
    files = [(f"README{number}", b"words") for number in range(length)]
    assert accounts(write(tmp_path / "0.tar", files)) == ([], [""])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_member_is_in_a_sample_and_every_pair_is_used_or_listed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    # A text named ._a.png belongs to no sample.
    name = st.text("aB1. _é/", max_size=5).filter(lambda text: not text.rpartition("/")[2].startswith("._"))
    names = data.draw(st.lists(name, unique=True, min_size=1, max_size=12))
    kinds = st.sampled_from([["png", "txt"], ["txt", "png", "json"], ["png"], ["txt"], ["npy"], [""]])
    drawn = {name: data.draw(kinds) for name in names}
    contents = [
        {"png": image(number), "json": b"{}", "txt": str(number).encode()} for number in range(len(names))
    ]
    files = [
        (f"{name}.{kind}" if kind else name, contents[number].get(kind, b"\xff"))
        for number, (name, endings) in enumerate(drawn.items())
        for kind in endings
        if kind or name
    ]
    if apart := data.draw(st.booleans()):
        files = data.draw(st.permutations(files))
    path = write(tmp_path_factory.mktemp("names") / "0.tar", files)
    used, listed = accounts(path)
    there = {
        str(number): name
        for number, (name, kinds) in enumerate(drawn.items())
        if "txt" in kinds and "png" in kinds
    }
    assert set(used) <= there.keys()
    assert len(set(used)) == len(used)
    # The key of a pair without a stem, as .png, is a dot.
    lost = {
        name if name.rpartition("/")[2].strip(".") else f"{name}."
        for number, name in there.items()
        if number not in used
    }
    assert lost <= (set(listed) if apart else set()), (files, used, listed)
    samples = [span for span in walk_samples(path) if isinstance(span, Sample)]
    assert sum(len(sample.members) for sample in samples) == len(files)
