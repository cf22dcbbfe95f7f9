"""Expressions: what they compute, and that no text makes them do anything else."""

import os
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from runners.data.build.expression import Expression, _engine
from runners.data.build.known_scores import expression_scores, metadata_facts
from runners.data.pool.pool import Pool
from tests.runners.tiny import tiny_pool

KNOWN = pa.table({
    "a": [1.0, None, 3.0, 0.0], "b": [1, 2, 3, 4], "v1.x": [1.0, 2, 3, 4], "good": [True, None, False, True],
    "caption": ["x y z", "dog", None, "it's"],
})  # fmt: skip
NAN = np.nan


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.5*a + b", [1.5, NAN, 4.5, 4]),
        ("v1.x + b // 2 + b % 2 - -1", [3, 4, 6, 7]),
        ("b ** 2 WHERE a > 0", [1, NAN, 9, NAN]),
        ("ln(a) WHERE a > 0", [0, NAN, np.log(3), NAN]),
        ("CASE WHEN a >= 1 THEN 2 * a WHEN a IS NULL THEN 7 END", [2, 7, 6, NAN]),
        ("coalesce(a, 7) WHERE b BETWEEN 2 AND 3 OR NOT b IN (1, 2, 3)", [NAN, 7, 3, 0]),
        ("b WHERE good", [1, NAN, NAN, 4]),
        ("b WHERE good IS NOT TRUE", [NAN, 2, 3, NAN]),
        ("b WHERE a IS DISTINCT FROM 3", [1, 2, NAN, 4]),
        ("greatest(b, TRY_CAST(caption AS DOUBLE), 2)", [2, 2, 3, 4]),
        ("length(caption) - length(replace(caption, ' ', ''))", [2, 0, NAN, 0]),
        ("b WHERE caption LIKE '% % %' OR regexp_matches(caption, '^d.g$')", [1, 2, NAN, NAN]),
        ("b WHERE lower(trim(caption)) || '!' = 'it''s!' -- a remark", [NAN, NAN, NAN, 4]),
        ("(b > 1)::INT", [0, 1, 1, 1]),
    ],
)
def test_a_value_of_each_pair_is_computed_where_its_condition_is_true(text: str, values: list[float]) -> None:
    np.testing.assert_allclose(Expression(text).values(KNOWN), values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("caption", "its value is VARCHAR, not a number"),
        ("a > 1", "its value is BOOLEAN, not a number"),
        ("a WHERE b", "its condition is BIGINT, not true or false"),
        ("CAST(caption AS DOUBLE)", "Conversion Error: Could not convert string 'x y z'"),
        ("avg(a)", r"it has a part \(avg\) that is not allowed; .* abs, acos, "),
        ("a if b > 1 else 2", "syntax error at or near .*; write VALUE or VALUE WHERE CONDITION, in SQL"),
    ],
)
def test_an_expression_that_gives_no_number_says_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^score .*: {message}"):
        Expression(text).values(KNOWN)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("b - - -1", [0, 1, 2, 3]),
        ("-(-b) /* -- */ + 1_000;", [1001, 1002, 1003, 1004]),
        ('"+"(b, "-"(b)) + "if"(good, 1, 2)', [1, 2, 2, 1]),
        ("length(replace(caption, 'é', 'aa')) WHERE caption <> E'it\\'s'", [5, 3, NAN, NAN]),
        ("1e400 - 0.1 WHERE caption SIMILAR TO '.*y.*'", [np.inf, NAN, NAN, NAN]),
        ("greatest(" + ", ".join(["b"] * 1_300) + ")", [1, 2, 3, 4]),
        ("CASE " + "WHEN good THEN b " * 200 + "END", [1, NAN, NAN, 4]),
        ("+".join(["b"] * 80), [80, 160, 240, 320]),
        ("b WHERE " + " OR ".join(["good"] * 400), [1, NAN, NAN, 4]),
    ],
)
def test_odd_and_long_texts_mean_what_they_mean_in_sql(text: str, values: list[float]) -> None:
    np.testing.assert_allclose(Expression(text).values(KNOWN), values)


DEEP = "it is nested too deeply, as is a sum of more than 80 terms"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (f'"{name}"()', r"\S+ takes .* values, not 0")
            for name in ("+", "-", "*", "//", "||", "~~", "!~~*")
        ),
        ('"-"(a, a, a)', "- takes 1 to 2 values, not 3"),
        ("b ** ** b", r"\*\* takes 2 values, not 1"),
        ("round(b, 1, 2)", "round takes 1 to 2 values, not 3"),
        ("greatest(*)", "greatest takes 1 to 4,000 values, not 0"),
        ("replace(caption, 'a', caption)", "replace takes a value and two texts, the second no longer than"),
        ("NOT " * 900 + "good", DEEP),
        ("- " * 1_900 + "b", DEEP),
        ("+".join(["b"] * 200), DEEP),
        ("'" + "x" * 3_900 + "'", "its value is VARCHAR, not a number"),
        ("x" * 3_900, "Binder Error: Values list .pairs. does not have a column named"),
        ("9" * 400, "its value is BIGNUM, not a number"),
        ("b\n +\n", "syntax error at or near"),
        ("b AS x", r"it has a part \(alias\) that is not allowed"),
        ("abs(x := b)", r"it has a part \(name\) that is not allowed"),
        ("[x FOR x IN [b]][1]", r"it has a part \(ARRAY_EXTRACT\) that is not allowed"),
        ("b OPERATOR(pg_catalog.+) 1", r"it has a part \(schema\) that is not allowed"),
        ("b::VARCHAR(3)", r"it has a part \(VARCHAR\) that is not allowed"),
        ("b WHERE caption = 'x\0y'", "it has a part that cannot be evaluated"),
        ('"b\0c"', "it has a part that cannot be evaluated"),
        ("b WHERE regexp_matches(caption, '(')", r"Invalid Input Error: missing \): \("),
        ("b // 0", "Invalid Input Error: Division by zero"),
        ("9223372036854775807 + b", "Out of Range Error: Overflow"),
    ],
)
def test_a_message_is_one_short_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^score '.*': {message}") as refusal:
        Expression(text).values(KNOWN)
    assert len(str(refusal.value).splitlines()) == 1
    assert len(str(refusal.value)) < 1_500


READ = (
    "read_csv('SECRET')", "read_csv_auto('SECRET')", "sniff_csv('SECRET')", "read_text('SECRET')",
    "read_blob('SECRET')", "read_json('SECRET')", "read_ndjson('SECRET')", "read_parquet('SECRET')",
    "parquet_metadata('SECRET')", "parquet_scan('SECRET')", "glob('SECRET')", "'SECRET'", "duckdb_settings()",
    "duckdb_secrets()", "pragma_version()", "range(10)", "sqlite_scan('SECRET', 'x')", "query('SELECT 1')",
    "query_table('pairs')", "arrow_scan(1, 2, 3)", "pandas_scan(1)", "python_map_function()", "os", "KNOWN",
    "information_schema.tables",
)  # fmt: skip
STATEMENTS = (
    "COPY (SELECT 1) TO 'CANARY'", "COPY pairs FROM 'SECRET'", "ATTACH 'CANARY'", "ATTACH 'SECRET' AS s",
    "INSTALL httpfs", "LOAD httpfs", "LOAD 'SECRET'", "INSTALL shellfs FROM community",
    "SET enable_external_access = true", "SET lock_configuration = false", "RESET enable_external_access",
    "PRAGMA enable_profiling", "PRAGMA version", "SET GLOBAL temp_directory = 'CANARY'",
    "EXPORT DATABASE 'CANARY'", "IMPORT DATABASE 'SECRET'", "CREATE TABLE t (i INT)", "DROP VIEW pairs",
    "CREATE SECRET s (TYPE s3)", "CREATE MACRO f(x) AS x", "CALL pragma_version()", "EXECUTE x",
    "PREPARE x AS SELECT 1", "EXPLAIN SELECT 1", "USE main", "CHECKPOINT", "VACUUM", "UPDATE pairs SET a = 1",
    "INSERT INTO pairs VALUES (1)", "DELETE FROM pairs",
)  # fmt: skip
PARTS = (
    "getenv('HOME')", "current_setting('temp_directory')", "getvariable('x')", "nextval('x')", "random()",
    "uuid()", "now()", "current_date", "current_user", "version()", "write_log('x')", "txid_current()",
    "current_query()", "json_serialize_sql('SELECT 1')", "system('touch CANARY')", "shell('touch CANARY')",
    "main.abs(a)", "system.main.abs(a)", "a.abs()", "sum(a)", "count(*)", "sum(a) OVER ()", "abs(a) OVER ()",
    "row_number() OVER (ORDER BY a)", "lag(a) OVER ()", "sum(a) FILTER (WHERE b > 1)",
    "abs(a) FILTER (WHERE b > 1)", "abs(DISTINCT a)", "abs(a ORDER BY a)", "abs(x := a)", "unnest([1, 2])",
    "*", "pairs.*", "COLUMNS('a')", "COLUMNS(*)", "a, b", "(a, b)", "ROW(a)", "{'x': a}", "[a]", "MAP {1: a}",
    "x -> x", "lambda x: x", "list_transform([a], x -> x)[1]", "?", "$1", "$name", "#1", "DEFAULT", "a AS b",
    "a COLLATE nocase", "a::BLOB", "a::UUID", "a::DECIMAL(38, 2)", "a::STRUCT(x INT)", "a::INT[]",
    "DATE '2020-01-01'", "INTERVAL 1 DAY", "a AT TIME ZONE 'x'", "caption[1]", "caption[1:2]", "(a).b",
    "rowid", "pairs", "nothere", "main.pairs.a", "GROUPING(a)", "factorial(b)", "hash(a)",
    "repeat('x', 1000000000000)", "repeat(caption, 4000000000)", "lpad('x', 4000000000, 'y')",
    "rpad('x', 4000000000, 'y')", "printf('%1000000000d', 1)", "format('{:1000000000}', 1)",
    "bar(1, 0, 1, 1e9)", "replace(caption, 'a', 'aa')", "replace(caption, '', caption)",
    "string_split(caption, ' ')", "range(b)", "regexp_replace(caption, '', 'xxxx', 'g')",
    "concat_ws(caption, caption, caption)",
)  # fmt: skip
WHOLE = (
    "(SELECT 1)", "(SELECT getenv('HOME'))", "EXISTS (FROM pairs)", "a IN (SELECT 1)", "a = ANY (SELECT 1)",
    "a = ANY ([1])", "(FROM pairs SELECT a LIMIT 1)", "(VALUES (1))", "(WITH x AS (SELECT 1) FROM x)",
    "(WITH RECURSIVE x AS (SELECT 1 UNION ALL FROM x) FROM x)", "a UNION SELECT 1", "a UNION ALL FROM pairs",
    "a EXCEPT SELECT 1", "a INTERSECT SELECT 1", "DISTINCT a", "DISTINCT ON (b) a", "a ORDER BY a",
    "a LIMIT 1", "a OFFSET 1", "a GROUP BY ALL", "a GROUP BY a", "a HAVING true", "a QUALIFY true",
    "a USING SAMPLE 1", "a TABLESAMPLE 10%", "a INTO t",
    "a WHERE (SELECT true)", "a WHERE sum(a) > 1", "1) FROM read_csv('SECRET') --",
    "1 FROM read_csv('SECRET')", "1 /*", "1 */ 2", "1 --\n; COPY pairs TO 'CANARY'", "a;;b", "; a", "", " ",
    "--", "a)", "(a", "a''", "'a", '"a', "$$a", "a\0b", "\N{FULLWIDTH LATIN SMALL LETTER A}",
    "a\N{NO-BREAK SPACE}FROM\N{NO-BREAK SPACE}x", "\N{RIGHT-TO-LEFT OVERRIDE}a", "U&'\\0061'", "\ud800",
    "(" * 4000 + "a" + ")" * 4000, "(" * 99 + "[" * 99, "- " * 1900 + "a", "NOT " * 900 + "good",
    "+".join(["a"] * 900), "abs(" * 90 + "a", "CASE WHEN good THEN " * 300 + "1" + " END" * 300,
    "a " * 100_000, "regexp_matches(caption, '((((a{100}){100}){100}){100}){100}')",
)  # fmt: skip
ATTACKS = (
    *(f"(FROM {each} SELECT 1)" for each in READ),
    *(f"a; {each}" for each in STATEMENTS),
    *STATEMENTS,
    *PARTS,
    *(f"a WHERE ({each}) IS NOT NULL" for each in PARTS),
    *WHOLE,
)


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Return a pool with a score, and metadata with columns as those of `KNOWN`, in the present folder."""
    monkeypatch.chdir(tmp_path)
    pool = Pool.open(tiny_pool(tmp_path / "pool"))
    table = {"key": pool.frame["key"], "a": 1.0, "b": range(pool.count), "good": True, "text": "x"}
    pd.DataFrame(table).to_parquet("metadata.parquet")
    return pool


@pytest.mark.slow
def test_no_text_reads_or_writes_a_file_starts_a_process_or_does_more_than_compute(pool: Pool) -> None:
    os.mkfifo("secret")  # would keep its reader waiting
    pipe = os.open("secret", os.O_RDONLY | os.O_NONBLOCK)
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert len(set(ATTACKS)) > 250
    for attack in ATTACKS:
        text = attack.replace("SECRET", "secret").replace("CANARY", "canary")
        for facts in (None, partial(metadata_facts, pool, Path("metadata.parquet"))):
            with pytest.raises(ValueError, match=r"^score '") as refusal:
                list(expression_scores(pool, text, facts))
            assert len(str(refusal.value)) < 2_000, attack
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before
    os.close(pipe)


@pytest.mark.parametrize(
    "statement",
    [
        *(f"FROM {each}" for each in READ if "SECRET" in each),
        *STATEMENTS[:16],
        "FROM KNOWN",
    ],
)
def test_the_connection_itself_is_locked_should_a_text_get_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text("a\n1\n")
    if statement.startswith("PRAGMA"):
        statement = "PRAGMA memory_limit = '9TB'"
    with pytest.raises(duckdb.Error):
        _engine().execute(statement.replace("SECRET", "secret").replace("CANARY", "canary")).fetchall()
    assert [*Path().iterdir()] == [Path("secret")]
