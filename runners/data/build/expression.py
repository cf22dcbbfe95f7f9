"""Expressions over what is known of each pair, in pandas' syntax."""

import ast
import re

import pandas as pd

_BY_PAIR = frozenset({
    "abs", "add", "astype", "between", "clip", "combine_first", "div", "divide", "eq", "fillna", "floordiv",
    "ge", "gt", "isin", "isna", "isnull", "le", "lt", "mask", "mod", "mul", "multiply", "ne", "notna",
    "notnull", "pow", "radd", "rdiv", "replace", "rmul", "round", "rpow", "rsub", "str", "sub", "subtract",
    "truediv", "where",
})  # fmt: skip
_OF_MISSING = frozenset({"fillna", "isna", "isnull", "notna", "notnull"})
_QUOTED = re.compile("`([^`]*)`")


class Expression:
    """An expression that gives a value for each pair from other values of that pair.

    Args:
        text: The expression.

    Attributes:
        text: The expression.
        names: The names in it.
        compared: The names in it whose missing values it does not handle itself, such as by ``isna()``.

    Raises:
        ValueError: It needs the values of other pairs, as ``mean()`` does: an index is read in parts, whose
            means differ.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Python does not know pandas' `quoted names`.
        quoted = {f"_quoted_{place}": name for place, name in enumerate(_QUOTED.findall(text))}
        for plain, name in quoted.items():
            text = text.replace(f"`{name}`", plain, 1)
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except SyntaxError:  # pandas says what is wrong
            self.names = self.compared = frozenset[str]()
            return
        handled = set[str]()
        for node in ast.walk(tree):
            other = _of_other_pairs(node)
            if other:
                raise ValueError(
                    f"'{other}' in '{self.text}' is not computed pair by pair; allowed: "
                    f"{', '.join(sorted(_BY_PAIR))}, and the methods of str"
                )
            if isinstance(node, ast.Attribute) and node.attr in _OF_MISSING:
                handled |= {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
        found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        self.names = frozenset(quoted.get(name, name) for name in found)
        self.compared = frozenset(quoted.get(name, name) for name in found - handled)

    def values(self, frame: pd.DataFrame) -> pd.Series:
        """Return the value for each row of a frame whose columns have the expression's names.

        Raises:
            ValueError: pandas cannot compute it, with pandas' reason.
        """
        try:
            found = frame.eval(self.text, engine="python")
        except Exception as error:  # pandas' parser raises many types of errors
            raise ValueError(str(error)) from error
        return found if isinstance(found, pd.Series) else pd.Series([found] * len(frame), dtype=object)


def _of_other_pairs(node: ast.AST) -> str:
    """Return the part of an expression that reads other pairs than its own; empty if it does not."""
    match node:
        case ast.Name(id="index"):
            reads = True
        case ast.Attribute(value=ast.Attribute(attr="str"), attr=name):
            reads = name in {"cat", "get_dummies"}
        case ast.Attribute(attr=name):
            reads = name not in _BY_PAIR
        case ast.Subscript(value=value):
            reads = not (isinstance(value, ast.Attribute) and value.attr == "str")
        case ast.Call(func=ast.Attribute(attr="isin" | "replace"), args=args):
            reads = not all(map(_is_literal, args))
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[values]):
            reads = not _is_literal(values)
        case _:
            reads = False
    return ast.unparse(node) if reads else ""


def _is_literal(node: ast.AST) -> bool:
    return not any(isinstance(each, ast.Name) for each in ast.walk(node))
