"""Scores that are computed pair by pair, in SQL that DuckDB parses and evaluates."""

import json
import re
from collections.abc import Mapping, Sequence
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

_LONGEST, _DEEPEST = 4_000, 100
_NUMBERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|U?INTEGER|FLOAT|DOUBLE|DECIMAL.*")

_OF_FIELDS = {
    "COMPARE_EQUAL": "{left} = {right}", "COMPARE_NOTEQUAL": "{left} <> {right}",
    "COMPARE_LESSTHAN": "{left} < {right}", "COMPARE_LESSTHANOREQUALTO": "{left} <= {right}",
    "COMPARE_GREATERTHAN": "{left} > {right}", "COMPARE_GREATERTHANOREQUALTO": "{left} >= {right}",
    "COMPARE_DISTINCT_FROM": "{left} IS DISTINCT FROM {right}",
    "COMPARE_NOT_DISTINCT_FROM": "{left} IS NOT DISTINCT FROM {right}",
    "COMPARE_BETWEEN": "{input} BETWEEN {lower} AND {upper}",
}  # fmt: skip
"""Part → how it is written of its fields."""
_OF_PARTS = {
    "CONJUNCTION_AND": ("", " AND ", ""), "CONJUNCTION_OR": ("", " OR ", ""),
    "OPERATOR_NOT": ("NOT ", "", ""), "OPERATOR_COALESCE": ("coalesce(", ", ", ")"),
    "OPERATOR_IS_NULL": ("", "", " IS NULL"), "OPERATOR_IS_NOT_NULL": ("", "", " IS NOT NULL"),
    "OPERATOR_TRY": ("TRY(", "", ")"),
}  # fmt: skip
"""Part → what stands before, between and behind its own parts."""

_OPERATORS = frozenset({
    "+", "-", "*", "/", "//", "%", "^", "**", "||", "~~", "!~~", "~~*", "!~~*",
})  # fmt: skip
# None makes a text much longer than those that it is given: their nesting would fill the memory.
_FUNCTIONS = frozenset({
    "abs", "acos", "asin", "atan", "atan2", "cbrt", "ceil", "contains", "cos", "cosh", "ends_with", "exp",
    "floor", "greatest", "if", "isfinite", "isinf", "isnan", "least", "left", "length", "ln", "log", "log10",
    "log2", "lower", "ltrim", "nullif", "pow", "power", "regexp_full_match", "regexp_matches", "replace",
    "right", "round", "rtrim", "sign", "sin", "sinh", "sqrt", "starts_with", "strpos", "substr", "substring",
    "tan", "tanh", "trim", "trunc", "upper",
})  # fmt: skip
_TYPES = frozenset({
    "BIGINT", "BOOLEAN", "DOUBLE", "FLOAT", "INTEGER", "STRING", "TEXT", "VARCHAR",
})  # fmt: skip

_ALLOWED = (
    "names, numbers, 'texts', arithmetic, comparisons, AND, OR, NOT, IN (…), BETWEEN, LIKE, IS NULL, CASE, "
    f"CAST, coalesce and {', '.join(sorted(_FUNCTIONS))}"
)


class Expression:
    """A number for each pair, ``VALUE`` or ``VALUE WHERE CONDITION``, in SQL over values of that pair.

    ``names`` are those that it uses. A pair has no value where the condition is not true, as where it
    compares a missing value. DuckDB parses the text, and evaluates what is written anew from the parsed
    parts, each of a kind that is allowed.

    Raises:
        ValueError: DuckDB cannot parse it; or a part of it is not allowed, as one that reads something else
            than values of the pair itself.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        found = self._select(text)
        values, condition = found.get("select_list") or [], found.get("where_clause")
        parts = {"select_list": values, "where_clause": condition}
        if len(values) != 1 or {**found, **parts} != {**self._select("0"), **parts}:
            raise self._refused("it is not one value of each pair")
        self._value = self._sql(values[0])
        self._condition = self._sql(condition) if condition else "true"
        if len({name.lower() for name in self.names}) < len(self.names):  # DuckDB does not tell them apart
            raise self._refused(f"some of its names, {', '.join(sorted(self.names))}, differ only in case")

    def values(self, pairs: pa.Table) -> NDArray[np.float64]:
        """Return the value for each row of a table with the columns `names`, NaN for none, float64 (rows,).

        Raises:
            ValueError: DuckDB can't compute it; or it is not a number, or the condition not true or false.
        """
        try:
            _engine().register("pairs", pairs)
            both = _engine().sql(f"SELECT {self._value}, {self._condition} FROM pairs")  # noqa: S608 - checked
            kind, condition = map(str, both.types)
            if not _NUMBERS.fullmatch(kind):
                raise self._refused(f"its value is {kind}, not a number")
            if condition != "BOOLEAN":
                raise self._refused(f"its condition is {condition}, not true or false")
            found = _engine().sql(
                f"SELECT CASE WHEN {self._condition} THEN CAST({self._value} AS DOUBLE) END FROM pairs"  # noqa: S608
            )
            values: NDArray[np.float64] = found.to_arrow_table().column(0).to_numpy()
        except duckdb.Error as error:
            raise self._refused(str(error).splitlines()[0]) from None
        return values

    def _refused(self, why: str) -> ValueError:
        return ValueError(
            f"score '{self.text[:200]}': {why}; write VALUE or VALUE WHERE CONDITION, in SQL, with {_ALLOWED}"
        )

    def _select(self, text: str) -> dict[str, Any]:
        """Return the fields of the only SELECT that a text is, without their places in the text."""
        if len(text) > _LONGEST or sum(map(text.count, "([{")) > _DEEPEST:  # DuckDB's parser takes minutes
            raise self._refused(f"it has more than {_LONGEST:,} characters or {_DEEPEST} brackets")
        try:
            found = _engine().execute("SELECT json_serialize_sql(?)", [f"FROM pairs SELECT {text}"])
            ((answer,),) = found.fetchall()
            parsed = json.loads(answer, object_hook=_without_places)
        except (duckdb.Error, ValueError, RecursionError):
            raise self._refused("it cannot be parsed, or is nested too deeply") from None
        if parsed["error"]:
            raise self._refused(parsed["error_message"])
        if len(parsed["statements"]) != 1:
            raise self._refused("it is more than one statement")
        node: dict[str, Any] = parsed["statements"][0]["node"]
        return node

    def _sql(self, node: Mapping[str, Any]) -> str:
        """Write a part anew; a kind or field of it that is not listed here is refused."""
        fields = {name: value for name, value in node.items() if value and name not in {"class", "type"}}
        kind, found = node["type"], None
        if kind in _OF_FIELDS:
            if set(re.findall(r"{(\w+)}", _OF_FIELDS[kind])) == fields.keys():
                found = _OF_FIELDS[kind].format_map({name: self._sql(each) for name, each in fields.items()})
        elif kind in _OF_PARTS:
            before, between, behind = _OF_PARTS[kind]
            if fields.keys() == {"children"}:
                found = before + between.join(map(self._sql, fields["children"])) + behind
        else:
            found = self._special(kind, fields)
        if found is None:
            raise self._refused(f"it has a part ({fields.get('function_name', kind)}) that is not allowed")
        return f"({found})"

    def _special(self, kind: str, fields: Mapping[str, Any]) -> str | None:
        """Write a part of another kind; None if it is not allowed."""
        found: str | None = None
        match kind, fields:
            case "VALUE_CONSTANT", {"literal": literal, **rest} if not rest:
                found = _constant(**literal)
            case "COLUMN_REF", {"column_names": names, **rest} if not rest:
                self.names.add(name := ".".join(names))  # of a score such as v1.2
                found = 'pairs."' + name.replace('"', '""') + '"'
            case "COMPARE_IN", {"children": [value, *others], **rest} if not rest:
                found = f"{self._sql(value)} IN ({', '.join(map(self._sql, others))})"
            case "CASE_EXPR", {"case_checks": checks, "else_expr": other, **rest} if not rest:
                pairs = [(self._sql(each["when_expr"]), self._sql(each["then_expr"])) for each in checks]
                cases = " ".join(f"WHEN {when} THEN {then}" for when, then in pairs)
                found = f"CASE {cases} ELSE {self._sql(other)} END"
            case "OPERATOR_CAST", {"child": value, "type_expr": {"type_name": name, **how}, **rest}:
                if name.upper() in _TYPES and not how.get("children") and rest.keys() <= {"try_cast"}:
                    found = f"{'TRY_CAST' if rest else 'CAST'}({self._sql(value)} AS {name.upper()})"
            case "FUNCTION", {"function_name": str(name), "qualified_name": {"path": [_]}, **rest}:
                found = self._call(name, rest)
        return found

    def _call(self, name: str, fields: Mapping[str, Any]) -> str | None:
        """Write a call of a function or operator; None if it is not allowed."""
        found: Sequence[Mapping[str, Any]] = fields.get("arguments", [])
        arguments = [each["expression"] for each in found]
        if (
            any(each["name"] for each in found)
            or not fields.keys() <= {"arguments", "order_bys", "is_operator"}
            or fields["order_bys"]["orders"]
            or (name == "replace" and not _shortens(arguments[1:]))
        ):
            return None
        parts = list(map(self._sql, arguments))
        if name in _OPERATORS:
            return f"{parts[0]} {name} {parts[1]}" if parts[1:] else f"{name} {parts[0]}"
        return f"{name}({', '.join(parts)})" if name in _FUNCTIONS else None


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config=_LOCKED)


def _constant(kind: str, text: str = "") -> str | None:
    if kind in {"INTEGER", "NUMERIC"}:
        return text if re.fullmatch(r"-?[\d_.]+([eE][+-]?\d+)?", text) else None
    if kind == "STRING":
        return "'" + text.replace("'", "''") + "'"
    return {"NULL_LITERAL": "NULL", "BOOLEAN": "true" if text == "true" else "false"}.get(kind)


def _shortens(arguments: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether two arguments are a text and one that is no longer."""
    texts = [each.get("literal", {}) for each in arguments]
    if [text.get("kind") for text in texts] != ["STRING", "STRING"]:
        return False
    old, new = (len(text.get("text", "").encode()) for text in texts)
    return new <= old


def _without_places(node: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if not name.startswith("query_location")}
