"""Texts and numbers of a table reach the pool as they are."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.source import Columns
from runners.data.pool.pool import Pool
from runners.data.pool.samples import read_samples
from tests.runners.data.indexed import field
from tests.runners.data.pool.test_pool import encoded

pytestmark = pytest.mark.slow

ODD = ["NA", "null", "nan", "None", "000", "007", "true", "false", "1.50", "1e3"]


def built(table: Path) -> Pool:
    return build_pool(table.with_suffix(""), Build(source=table), lambda *_: None)


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Names of images beside the table, one for each odd caption."""
    names = [f"{n}.png" for n in range(len(ODD))]
    for n, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded(8, 8, "PNG", n))
    return names


def facts(pool: Pool) -> list[dict[str, object]]:
    shards = sorted((pool.path / "shards").glob("*.tar"))
    found = [json.loads(members["json"][1]) for shard in shards for _, members in read_samples(shard)]
    return sorted(found, key=lambda each: ODD.index(str(each["caption"])))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_captions_and_ids_that_look_like_something_else_stay_texts(
    tmp_path: Path, images: list[str], ending: str
) -> None:
    uids = [f"{n:032d}" for n in range(len(ODD))]
    table = pd.DataFrame({
        "image": images, "caption": ODD, "uid": uids, "popularity": range(10), "created_at": "1700000000",
        "code": [f"{n:03d}" for n in range(10)], "similarity": np.arange(10) * 1e-12,
    })  # fmt: skip
    file = tmp_path / f"t.{ending}"
    if ending == "jsonl":
        table.to_json(file, orient="records", lines=True, double_precision=15)
    else:
        table.to_csv(file, sep="\t" if ending == "tsv" else ",", index=False)

    pool = built(file)

    by_caption = pool.frame.set_index("caption").loc[ODD]
    assert by_caption["uid"].tolist() == uids
    np.testing.assert_allclose(by_caption["score"], table["similarity"].astype(np.float32))
    found = facts(pool)
    assert [each["popularity"] for each in found] == list(range(10))
    assert [each["code"] for each in found] == table["code"].tolist()
    assert all(str(each["created_at"]) == "1700000000" for each in found)


def test_columns_of_bytes_and_dates_do_not_stop_a_build(tmp_path: Path, images: list[str]) -> None:
    pd.DataFrame({
        "image": images, "caption": ODD, "similarity": [Decimal(f"{n}.5") for n in range(10)],
        "preview": [b"\xff\xfe"] * 10, "painted": [dt.date(1600, 1, 1)] * 10,
        "words": [["a", "b"]] * 10, "rating": [None, *map(float, range(9))],
    }).to_parquet(tmp_path / "t.parquet")  # fmt: skip

    pool = built(tmp_path / "t.parquet")

    assert pool.frame.set_index("caption").loc[ODD, "score"].tolist() == [n + 0.5 for n in range(10)]
    first = facts(pool)[0]
    assert (first["preview"], first["painted"], first["words"]) == (None, "1600-01-01", ["a", "b"])
    ratings = field(pool, "rating")
    assert sorted(ratings[np.isfinite(ratings)].tolist()) == list(range(9))


def test_a_score_by_another_name_leaves_the_similarity_of_the_samples_alone(
    tmp_path: Path, images: list[str]
) -> None:
    table = pd.DataFrame({"image": images, "caption": ODD, "similarity": 0.25, "aesthetic": range(10)})
    table.to_csv(tmp_path / "t.csv", index=False)
    how = Build(source=tmp_path / "t.csv", columns=Columns(score="aesthetic"))
    pool = build_pool(tmp_path / "t", how, lambda *_: None)

    assert pool.frame.set_index("caption").loc[ODD, "score"].tolist() == list(range(10))
    assert [(each["similarity"], each["aesthetic"]) for each in facts(pool)] == [(0.25, n) for n in range(10)]


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        (["one", "two"], "caption is not text"), ({"en": "x"}, "caption is not text"),
        (True, "caption is not text"), (None, "no caption"), ("x\ud800", "caption is not UTF-8"),
    ],
)  # fmt: skip
def test_captions_that_are_not_text_are_left_out(
    tmp_path: Path, images: list[str], caption: object, reason: str
) -> None:
    rows = [{"image": images[0], "caption": "a text"}, {"image": images[1], "caption": caption}]
    rows.append({"image": "", "caption": "no file"})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    pool = built(tmp_path / "t.jsonl")

    assert pool.frame["caption"].tolist() == ["a text"]
    assert pool.left_out == {reason: 1, "no image": 1}


def test_a_cell_that_is_not_a_number_loses_only_its_own_score(tmp_path: Path, images: list[str]) -> None:
    scores = ["0.5", "NA", "5%", "", "1e-3", "7", "0.25", "inf", "none", "-2"]
    table = pd.DataFrame({"image": images, "caption": ODD, "similarity": scores})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_json(tmp_path / "u.jsonl", orient="records", lines=True)
    for file in ("t.csv", "u.jsonl"):
        pool = built(tmp_path / file)
        found = {str(row["caption"]): row["similarity"] for row in facts(pool)}
        assert pool.scored == 5
        assert sorted(pool.frame["score"].dropna().tolist()) == pytest.approx([-2, 1e-3, 0.25, 0.5, 7])
        assert len(found) == len(ODD)


def test_a_score_column_that_was_asked_for_must_exist(tmp_path: Path, images: list[str]) -> None:
    pd.DataFrame({"image": images, "caption": ODD, "clip": 0.5}).to_csv(tmp_path / "t.csv", index=False)
    asked = Build(source=tmp_path / "t.csv", columns=Columns(score="clpi"))
    with pytest.raises(ValueError, match=r"unknown column 'clpi'; did you mean 'clip'\?"):
        build_pool(tmp_path / "pool", asked, lambda *_: None)


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        (4, ["id,image,caption", "1,0.png,one", "", '2,1.png,"two', "3,2.png,three", '4,3.png,a 5" screen']),
        (2, ["caption,image", '"one,0.png', "two,1.png", 'the 5",2.png', "four,3.png"]),
        (5, ["id,image,caption", '1,0.png,"a', 'b"', "", '2,1.png,"two', '3,2.png,the 5"', "4,3.png,four"]),
        (3, ["image,caption", "0.png,one", '1.png,"two']),
    ],
    ids=["id first", "ends a field", "after a text of two lines", "last row"],
)
def test_the_line_whose_quotation_mark_is_not_closed_is_named(
    tmp_path: Path, line: int, rows: list[str]
) -> None:
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(
        ValueError, match=rf't\.csv:{line}: .*a quotation mark is not closed.* write it as ""'
    ):
        built(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "rows",
    [
        ["caption\timage", '"one\t0.png', "two\t1.png", 'a 5" screen\t2.png'],
        ["caption\timage", '"one\t0.png', "two\t1.png", 'the 5"\t2.png'],
    ],
)
def test_a_quotation_mark_of_a_tsv_is_read_as_it_is_wherever_its_columns_are(
    tmp_path: Path, images: list[str], rows: list[str]
) -> None:
    (tmp_path / "t.tsv").write_text("\n".join(rows) + "\n")
    assert images[:3] == [line.split("\t")[1] for line in rows[1:]]
    found = built(tmp_path / "t.tsv").frame["caption"]
    assert sorted(found) == sorted(line.split("\t")[0] for line in rows[1:])


def test_texts_of_several_lines_that_mention_images_are_captions(tmp_path: Path, images: list[str]) -> None:
    captions = ["first line\nsee 1.png, and more", 'he said "hi", and\n\nleft', "x" * 200_000, "four"]
    table = pd.DataFrame({"image": images[:4], "caption": captions})
    table.to_csv(tmp_path / "t.csv", index=False)
    assert sorted(built(tmp_path / "t.csv").frame["caption"]) == sorted(
        " ".join(each.split()) for each in captions
    )


def test_blanks_after_a_quoted_text_and_lines_of_numbers_do_not_count_as_other_rows(
    tmp_path: Path, images: list[str]
) -> None:
    rows = [f'{images[0]},"two\nlines" ,0.5', f'{images[1]},"x, y\nz, w, 0.5\nq, r",0.5']
    (tmp_path / "t.csv").write_text("\n".join(["image,caption,number", *rows]) + "\n")
    assert sorted(built(tmp_path / "t.csv").frame["caption"]) == ["two lines", "x, y z, w, 0.5 q, r"]


def test_a_damaged_page_of_a_parquet_names_the_file(tmp_path: Path, images: list[str]) -> None:
    table = tmp_path / "t.parquet"
    pd.DataFrame({"image": images, "caption": ODD}).to_parquet(table, compression=None)
    content = bytearray(table.read_bytes())
    content[4:34] = b"\xff" * 30  # the first page's header
    table.write_bytes(content)
    with pytest.raises(ValueError, match=r"/t\.parquet can't be read: "):
        built(table)
