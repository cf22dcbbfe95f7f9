"""Scores that are computed pair by pair, in SQL that DuckDB parses and evaluates."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
    "temp_directory": "",
    "memory_limit": "1GB",
    "threads": 1,
    "lock_configuration": True,
}
"""Settings of a connection that reaches no file, no other process and no variable of Python."""

_LONGEST, _MOST_BRACKETS, _LONGEST_QUOTED = 4_000, 100, 200
_NUMBERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|U?INTEGER|FLOAT|DOUBLE|DECIMAL.*")

_TOO_DEEP = "it is nested too deeply, as is a sum of more than 80 terms"  # DuckDB's limit for parsed texts

_QUERY = "SELECT CASE WHEN true THEN 0 END, true FROM pairs"
"""Frame of a query: a value where its condition is true (elsewhere it may be an error), and the condition."""

_CLASSES = frozenset({
    "", "BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION",
    "OPERATOR", "TYPE",
})  # fmt: skip
"""Classes of parsed parts; those of lists, such as the arguments of a function, have none."""
_FIELDS = frozenset({
    "arguments", "case_checks", "child", "children", "class", "column_names", "else_expr", "expression",
    "function_name", "input", "is_operator", "kind", "left", "literal", "lower", "order_bys", "path",
    "qualified_name", "right", "text", "then_expr", "try_cast", "type", "type_expr", "type_name", "upper",
    "when_expr",
})  # fmt: skip
"""Fields of parsed parts that may hold something; not filter, distinct, orders, alias, schema and so on."""

_OPERATORS = frozenset({
    "COMPARE_IN", "OPERATOR_COALESCE", "OPERATOR_IS_NOT_NULL", "OPERATOR_IS_NULL", "OPERATOR_NOT",
    "OPERATOR_TRY",
})  # fmt: skip
_TYPES = frozenset({"BIGINT", "BOOLEAN", "DOUBLE", "FLOAT", "INTEGER", "STRING", "TEXT", "VARCHAR"})
_ARGUMENTS: Mapping[str, range] = {
    name: range(least, most + 1)
    for least, most, names in (
        (1, 1, "abs acos asin atan cbrt ceil cos cosh exp floor isfinite isinf isnan length ln log10 log2"),
        (1, 1, "lower sign sin sinh sqrt tan tanh upper"),
        (1, 2, "+ - log ltrim round rtrim trim trunc"),
        (2, 2, "* / // % ^ ** || ~~ !~~ ~~* !~~* atan2 contains ends_with left nullif pow power right"),
        (2, 2, "starts_with strpos"),
        (2, 3, "regexp_full_match regexp_matches substr substring"),
        (3, 3, "if replace"),
        (1, _LONGEST, "greatest least"),
    )
    for name in names.split()
}
"""Function or operator → how many arguments it may have.

None makes a text much longer than those that it is given: their nesting would fill the memory.
"""

_ALLOWED = (
    "names, numbers, 'texts', arithmetic, comparisons, AND, OR, NOT, IN (…), BETWEEN, LIKE, IS NULL, CASE, "
    f"CAST, coalesce and {', '.join(sorted(filter(str.isidentifier, _ARGUMENTS)))}"
)


class Expression:
    """A number for each pair, ``VALUE`` or ``VALUE WHERE CONDITION``, in SQL over values of that pair.

    ``names`` are those that it uses. A pair has no value where the condition is not true, as where it
    compares a missing value. DuckDB parses the text, and evaluates what it writes of the parsed parts, each
    of a kind that is allowed.

    Raises:
        ValueError: DuckDB cannot parse it; or a part of it is not allowed, as one that reads something else
            than values of the pair itself.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        if len(text) > _LONGEST or sum(map(text.count, "([{")) > _MOST_BRACKETS:  # the parser takes minutes
            raise self._refused(f"it has more than {_LONGEST:,} characters or {_MOST_BRACKETS} brackets")
        select, query = self._parsed(f"FROM pairs SELECT {text}"), self._parsed(_QUERY)
        values, condition = select.get("select_list") or [], select.get("where_clause")
        clauses = {"select_list": values, "where_clause": condition}
        if len(values) != 1 or {**select, **clauses} != {**query, **clauses}:
            raise self._refused("it is not one value of each pair")
        for node in _nodes([*values, condition]):
            self._check(node)
        if len({name.lower() for name in self.names}) < len(self.names):  # DuckDB does not tell them apart
            raise self._refused(f"some of its names, {', '.join(sorted(self.names))}, differ only in case")
        score, true = query["select_list"]
        score["case_checks"] = [{"when_expr": condition or true, "then_expr": values[0]}]
        query["select_list"] = [score, condition or true]
        self._query = self._sql(query)

    def values(self, pairs: pa.Table) -> NDArray[np.float64]:
        """Return the value for each row of a table with the columns `names`, NaN for none, float64 (rows,).

        Raises:
            ValueError: DuckDB can't compute it; or it is not a number, or the condition not true or false.
        """
        try:
            _engine().register("pairs", pairs)
            kind, condition = map(str, _engine().sql(self._query).types)
            if not _NUMBERS.fullmatch(kind):
                raise self._refused(f"its value is {kind}, not a number")
            if condition != "BOOLEAN":
                raise self._refused(f"its condition is {condition}, not true or false")
            scores = _engine().sql(f"SELECT CAST(score AS DOUBLE) FROM ({self._query}) AS t(score)")  # noqa: S608
            values: NDArray[np.float64] = scores.to_arrow_table().column(0).to_numpy()
        except duckdb.Error as error:
            raise self._refused(str(error).splitlines()[0]) from None
        return values

    def _refused(self, why: str) -> ValueError:
        score, reason = (
            text if len(text) <= _LONGEST_QUOTED else f"{text[:_LONGEST_QUOTED]} …"
            for text in (" ".join(text.split()) for text in (self.text, why))
        )
        return ValueError(
            f"score '{score}': {reason}; write VALUE or VALUE WHERE CONDITION, in SQL, with {_ALLOWED}"
        )

    def _parsed(self, sql: str) -> dict[str, Any]:
        """Return the fields of the only SELECT that a text is, without their places in the text."""
        try:
            parsed = json.loads(_answer("json_serialize_sql(?)", sql), object_hook=_without_places)
        except RecursionError:
            raise self._refused(_TOO_DEEP) from None
        except (duckdb.Error, ValueError):
            raise self._refused("it cannot be parsed") from None
        if parsed["error"]:
            message: str = parsed["error_message"]
            raise self._refused(_TOO_DEEP if "expression depth" in message else message)
        if len(parsed["statements"]) != 1:
            raise self._refused("it is more than one statement")
        node: dict[str, Any] = parsed["statements"][0]["node"]
        return node

    def _check(self, node: dict[str, Any]) -> None:
        """Note the name that a part is; ValueError if it is not allowed."""
        name = str(node.get("function_name") or node.get("type_name") or node.get("type"))
        other = {field for field, value in node.items() if value} - _FIELDS
        allowed = node.get("class", "") in _CLASSES and not other
        match node:
            case {"class": "COLUMN_REF", "column_names": names}:
                self.names.add(column := ".".join(names))  # of a score such as v1.x
                node["column_names"] = ["pairs", column]
            case {"class": "OPERATOR"}:
                allowed &= name in _OPERATORS
            case {"class": "TYPE", "qualified_name": {"path": path}, "children": children}:
                allowed &= path == [name] and name.upper() in _TYPES and not children
            case {"class": "FUNCTION", "arguments": arguments, "qualified_name": {"path": path}}:
                allowed &= path == [name] and name in _ARGUMENTS
                if allowed and len(arguments) not in (counts := _ARGUMENTS[name]):
                    most = f" to {counts[-1]:,}" if len(counts) > 1 else ""
                    raise self._refused(f"{name} takes {counts[0]}{most} values, not {len(arguments)}")
                if allowed and name == "replace" and not _shortens(arguments):
                    raise self._refused(
                        "replace takes a value and two texts, the second no longer than the first"
                    )
        if not allowed:
            part = ", ".join(sorted(other)) or name
            raise self._refused(f"it has a part ({part}) that is not allowed")

    def _sql(self, select: Mapping[str, Any]) -> str:
        """Return a checked SELECT in SQL that is parsed as the same SELECT."""
        try:
            sql = _answer("json_deserialize_sql(?)", json.dumps({"statements": [{"node": select}]}))
        except duckdb.Error:
            raise self._refused(_TOO_DEEP) from None
        if self._parsed(sql) != select:
            raise self._refused("it has a part that cannot be evaluated")
        return sql


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config=_LOCKED)


def _answer(call: str, argument: str) -> str:
    ((answer,),) = _engine().execute(f"SELECT {call}", [argument]).fetchall()
    return str(answer)


def _nodes(parsed: object) -> Iterator[dict[str, Any]]:
    """Yield all objects of parsed JSON, at any depth."""
    waiting = [parsed]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _shortens(arguments: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether two of three arguments are a text, and one that is no longer."""
    literals = [argument["expression"].get("literal", {}) for argument in arguments[1:]]
    old, new = (len(literal.get("text", "").encode()) for literal in literals)
    return new <= old and all(literal.get("kind") == "STRING" for literal in literals)


def _without_places(node: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if not name.startswith("query_location")}
