"""The strict reader of tables: what it refuses, with the line, and what it leaves as it is."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runners.data.build.table_file import columns_and_rows, read_any_table

ODD = 'name,note,n\n"a","two\nlines",1\n\n007,None,NA\nNA,"say ""hi""",2.5\n'


def test_each_row_knows_its_line_and_texts_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(ODD)
    table = read_any_table(path)
    assert table.index.tolist() == ["t.csv:2", "t.csv:5", "t.csv:6"]
    assert table["name"].tolist() == ["a", "007", "NA"]
    assert table["note"].tolist() == ["two\nlines", "None", 'say "hi"']
    assert table["n"].fillna(0).tolist() == [1, 0, 2.5]


def test_other_kinds_and_packed_texts_give_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\r\n1,x\n2,y\n")
    (tmp_path / "t.tsv").write_text("a\tb\n1\tx\n2\ty\n")
    (tmp_path / "t.jsonl").write_text('{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n')
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write("a,b\n1,x\n2,y\n")
    pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}).to_parquet(tmp_path / "t.parquet")
    for path in tmp_path.iterdir():
        assert columns_and_rows(path) == (["a", "b"], 2), path
        assert read_any_table(path).to_numpy().tolist() == [[1, "x"], [2, "y"]], path
    assert read_any_table(tmp_path / "t.parquet").index[1] == "t.parquet: row 2"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", 'a,b\n\n"x\ny",1\n\n1,2,3\n', r"t\.csv:6: 3 fields, but 2 in the header"),
        ("t.csv", "a,b\n1,2\n1\n", r"t\.csv:3: 1 fields, but 2 in the header"),
        ("t.csv", 'a,b\n1,"x\n2,y\n', r"t\.csv:2: a quotation mark is not closed"),
        ("t.csv", 'a,b\n1,x\n2,"y"z\n', r"t\.csv:3: a quotation mark is not closed"),
        ("t.csv", "a,b,a\n1,2,3\n", r"t\.csv:1: its header has two columns 'a'"),
        ("t.csv", "\na,b\r\n", "table .*t.csv has no rows"),
        ("t.csv", "", "table .*t.csv has no rows"),
        ("t.csv", "a,b\n", "table .*t.csv has no rows"),
        ("t.csv", "a,b\r1,2\r", r"t\.csv:1: a carriage return amid a line; end lines with line feeds"),
        ("t.csv", "a,b\n1,x\ry\n", r"t\.csv:2: a carriage return amid a line"),
        ("t.csv.gz", "a,b\n1,2\n", r"t\.csv\.gz can't be read"),
        ("t.jsonl", '{"a": 1}\n' + "[" * 100_000, r"t\.jsonl:2: not valid JSON: maximum recursion depth"),
        ("t.jsonl", "", "table .*t.jsonl has no rows"),
        ("t.jsonl", '{"a": 1}\n\n[1]\n', r"t\.jsonl:3: not a JSON object"),
        ("t.parquet", "no", "can't be read"),
        ("t.xlsx", "", "must be a .parquet, .csv"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_bytes(text.encode())
    with pytest.raises(ValueError, match=message):
        read_any_table(tmp_path / name)


def test_other_encodings_are_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for encoding, line in (("utf-16", 1), ("utf-16-le", 1), ("utf-16-be", 1), ("latin-1", 2)):
        path.write_bytes("a,b\n1,é\n".encode(encoding))
        with pytest.raises(ValueError, match=rf"t\.csv:{line}: its text is not UTF-8 .*; save it as UTF-8"):
            read_any_table(path)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('\N{BYTE ORDER MARK}"a",b\r\n1,x\n2,"y\rz"\r\n', [[1, "x"], [2, "y\rz"]]),
        ("a,b\n1,x\0y", [[1, "x\0y"]]),
        (",".join(map(str, range(300))) + "\n" + ",".join(["7"] * 300), [[7] * 300]),
        ('a\n\n1\n""\n', [[1], [None]]),
    ],
    ids=["mark and line ends", "NUL", "wide", "one column"],
)
def test_odd_tables_are_read_as_they_are(tmp_path: Path, text: str, rows: list[list[object]]) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode())
    table = read_any_table(tmp_path / "t.csv").astype(object)
    assert table.where(table.notna(), None).to_numpy().tolist() == rows


def test_two_columns_of_a_parquet_with_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet: its header has two columns 'a'"):
        read_any_table(tmp_path / "t.parquet")


READ = """
import resource, sys
from pathlib import Path
from runners.data.build.table_file import columns_and_rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    columns_and_rows(Path(sys.argv[1]))
except ValueError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "start", "repeated", "message"),
    [
        ("csv", "a,b\n", "x", "2: a line of more than 16,777,216 bytes"),
        ("tsv", "", "x", "1: a line of more than 16,777,216 bytes"),
        ("jsonl", "{}\n", "x", "2: a line of more than 16,777,216 bytes"),
        ("csv", 'a,b\n1,2\n3,"', "x,y\n", "3: a quotation mark is not closed"),
    ],
)
def test_a_row_larger_than_the_memory_is_refused_in_little_of_it(
    tmp_path: Path, ending: str, start: str, repeated: str, message: str
) -> None:
    path = tmp_path / f"t.{ending}.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start.encode())
        for _ in range(400):
            file.write(repeated.encode() * (1_000_000 // len(repeated)))
    read = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True)
    kib, error = read.stdout.split(maxsplit=1)
    assert re.search(rf"/t\.{ending}\.gz:{message}", error)
    assert int(kib) << 10 < 400_000_000  # less than the row
