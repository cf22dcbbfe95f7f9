"""Expressions over what is known of each pair, in pandas' syntax."""

import ast
import re

import pandas as pd

_BY_PAIR = frozenset({
    "abs", "add", "astype", "between", "clip", "div", "eq", "fillna", "floordiv", "ge", "gt", "isin", "isna",
    "isnull", "le", "lt", "mask", "mod", "mul", "ne", "notna", "notnull", "pow", "round", "str", "sub",
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
            if not isinstance(node, ast.Attribute):
                continue
            of_text = isinstance(node.value, ast.Attribute) and node.value.attr == "str"
            if node.attr in {"cat", "get_dummies"} if of_text else node.attr not in _BY_PAIR:
                allowed = ", ".join(sorted(_BY_PAIR))
                raise ValueError(
                    f"'{node.attr}' in '{self.text}' is not computed pair by pair; allowed: {allowed}, "
                    "and the methods of str"
                )
            if node.attr in _OF_MISSING and isinstance(node.value, ast.Name):
                handled.add(node.value.id)
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
