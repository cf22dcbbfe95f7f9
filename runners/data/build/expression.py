"""Expressions over what is known of each pair: the part of pandas' syntax that reads these values alone."""

import ast
import re
import warnings
from collections.abc import Sequence

import pandas as pd

_OF_NUMBER = frozenset({
    "abs", "add", "between", "clip", "combine_first", "div", "divide", "eq", "fillna", "floordiv",
    "ge", "gt", "isna", "isnull", "le", "lt", "mask", "mod", "mul", "multiply", "ne", "notna",
    "notnull", "pow", "radd", "rdiv", "rmul", "round", "rpow", "rsub", "sub", "subtract",
    "truediv", "where",
})  # fmt: skip
_OF_TEXT = frozenset({
    "capitalize", "casefold", "contains", "count", "endswith", "find", "findall", "fullmatch", "get",
    "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle",
    "isupper", "len", "lower", "lstrip", "match", "normalize", "removeprefix", "removesuffix", "replace",
    "rfind", "rsplit", "rstrip", "slice", "split", "startswith", "strip", "swapcase", "title", "upper",
})  # fmt: skip
_FUNCTIONS = frozenset({
    "abs", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "ceil", "cos", "cosh",
    "exp", "expm1", "floor", "log", "log10", "log1p", "sin", "sinh", "sqrt", "tan", "tanh",
})  # fmt: skip
# Other names of types are looked up, a time zone's in any file that it names.
_TYPES = frozenset(
    {"bool", "boolean", "float", "float32", "float64", "int", "int64", "Int64", "str", "string"}
)
_OF_MISSING = frozenset({"fillna", "isna", "isnull", "notna", "notnull"})

_ALLOWED = ", ".join([
    *sorted({*_OF_NUMBER, "astype", "isin", "replace"}), *(f"str.{name}" for name in sorted(_OF_TEXT)),
    *(f"{name}(x)" for name in sorted(_FUNCTIONS)), "numbers", "texts", "lists", "arithmetic", "comparisons",
    "and", "or", "not",
])  # fmt: skip
_OPERATORS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip

_TEXT_OR_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`([^`]*)`""", re.DOTALL)
"""A text, or pandas' `quoted name`, which may hold what is no name in Python."""


class Expression:
    """An expression that gives a value for each pair from other values of that pair.

    ``compared`` are the names whose missing values it does not handle itself, such as by ``isna()``.

    Raises:
        ValueError: Python cannot parse it; or a part of it is not allowed, such as one that needs the values
            of other pairs, as ``mean()`` does: an index is read in parts, whose means differ.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        quoted = dict[str, str]()  # the plain name that stands for each quoted one

        def plain(found: re.Match[str]) -> str:
            if found[1] is None:
                return found[0]
            quoted[name := f"_quoted_{len(quoted)}"] = found[1]
            return name

        try:
            with warnings.catch_warnings(action="ignore"):  # of escapes such as \d in a regular expression
                tree = ast.parse(_TEXT_OR_QUOTED.sub(plain, text).strip(), mode="eval").body if text else None
            if tree:
                self._require_allowed(tree)
            # pandas gets what was checked, not the text, which it might read in another way.
            self._checked = ast.unparse(tree) if tree else ""
        except (SyntaxError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
            raise ValueError(f"'{text[:200]}' cannot be parsed: {reason}") from None
        nodes = [] if tree is None else list(ast.walk(tree))
        functions = {node.func for node in nodes if isinstance(node, ast.Call)}
        names = {node.id for node in nodes if isinstance(node, ast.Name) and node not in functions}
        handled = {
            name.id
            for node in nodes if isinstance(node, ast.Attribute) and node.attr in _OF_MISSING
            for name in ast.walk(node.value) if isinstance(name, ast.Name)
        }  # fmt: skip
        self._plain = {quoted.get(name, name): name for name in names}
        self.names = frozenset(self._plain)
        self.compared = frozenset(quoted.get(name, name) for name in names - handled)

    def values(self, frame: pd.DataFrame) -> pd.Series:
        """Return the value for each row; ValueError if a name is missing or pandas can't compute it."""
        for name in sorted(self.names - {*frame.columns, "inf"}):
            raise ValueError(f"name '{name}' is not defined")
        columns = {plain: frame[name] for name, plain in self._plain.items() if name in frame}
        try:
            # Without a scope of its own, pandas looks names up in the modules that call it.
            found = pd.eval(
                self._checked, engine="python", local_dict={}, global_dict={}, resolvers=[columns]
            )
        except Exception as error:  # pandas' parser raises many types of errors
            raise ValueError(str(error)) from error
        return found if isinstance(found, pd.Series) else pd.Series([found] * len(frame), dtype=object)

    def _require_allowed(self, node: ast.expr) -> None:
        """Raise ValueError unless each part is of a kind that is listed, whatever else Python can parse."""
        parts = _parts(node)
        if parts is None:
            refused = ast.unparse(node)
            raise ValueError(
                f"'{refused}' in '{self.text}' is not computed pair by pair; allowed: {_ALLOWED}"
            )
        for part in parts:
            self._require_allowed(part)


def _parts(node: ast.expr) -> Sequence[ast.expr] | None:
    """Return the parts of a node whose own kind is allowed; None if it is not."""
    parts: Sequence[ast.expr] | None = None
    match node:
        case ast.Constant(value=bool() | int() | float() | str()) | ast.Name():
            parts = []
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.BoolOp(values=parts):
            pass
        case ast.UnaryOp(operand=operand):
            parts = [operand]
        case ast.BinOp(left=left, op=operator, right=right) if isinstance(operator, _OPERATORS):
            parts = [left, right]
        case ast.Compare(left=left, ops=operators, comparators=others):
            for comparison, other in zip(operators, others, strict=True):
                among = isinstance(comparison, ast.In | ast.NotIn) and _is_literal(other)
                if not among and not isinstance(comparison, _OPERATORS):
                    return None
            parts = [left, *others]
        case ast.Subscript(value=ast.Attribute(value=value, attr="str"), slice=place) if _is_literal(place):
            inner = [place.lower, place.upper, place.step] if isinstance(place, ast.Slice) else [place]
            parts = [value, *filter(None, inner)]
        case ast.Call():
            parts = _parts_of_call(node)
    return parts


def _parts_of_call(node: ast.Call) -> Sequence[ast.expr] | None:
    """Return a call's arguments, and the value whose method it calls; None if it is not allowed."""
    arguments = [*node.args, *(each.value for each in node.keywords)]
    # ``method="ffill"`` takes values of the pairs before.
    if any(each.arg in {None, "method"} for each in node.keywords):
        return None
    of: list[ast.expr] = []
    match node.func:
        case ast.Name(id=name):
            allowed = name in _FUNCTIONS
        case ast.Attribute(value=ast.Attribute(value=text, attr="str"), attr=name):
            of, allowed = [text], name in _OF_TEXT
        case ast.Attribute(value=value, attr="astype"):
            of, allowed = (
                [value],
                all(isinstance(each, ast.Constant) and each.value in _TYPES for each in arguments),
            )
        case ast.Attribute(value=value, attr="isin" | "replace"):
            of, allowed = [value], all(map(_is_literal, arguments))
        case ast.Attribute(value=value, attr=name):
            of, allowed = [value], name in _OF_NUMBER
        case _:
            allowed = False
    return [*of, *arguments] if allowed else None


def _is_literal(node: ast.AST) -> bool:
    return not any(isinstance(each, ast.Name) for each in ast.walk(node))
