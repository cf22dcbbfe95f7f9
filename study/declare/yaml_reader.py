"""Reader of YAML files: a tree of nodes that know their lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import yaml

from budgets.declaration.marked_file import Content, DeclarationError, DeclaredKeyError, MarkedFile, Node
from budgets.names import one_line, shortened

# libyaml's loader is ten times faster, with the same nodes and marks.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_LARGEST_BYTES = 4_000_000
"""Largest file that is parsed; a hundred thousand values take less."""
_MOST_REPEATED = 100_000
"""Most values that the aliases of a file repeat."""


@contextmanager
def errors_with_line(path: Path | None) -> Iterator[None]:
    """Context manager that puts file and line of the declared key before a `DeclaredKeyError`.

    Args:
        path: The declaration's file; None to leave errors as they are.

    Raises:
        DeclarationError: Instead of the `DeclaredKeyError`.
    """
    try:
        yield
    except DeclaredKeyError as error:
        if path is None:
            raise
        line = read_top(path).find(error.key)[0].key_line
        raise DeclarationError(f"{path}:{line}: {error}") from None


def read_top(path: Path, folder: Path | None = None) -> Node:
    """Parse a YAML file whose top is a mapping.

    Args:
        path: The file.
        folder: Folder that relative paths are relative to, by default that of the file.

    Raises:
        DeclarationError: The file can't be read or is not YAML, or its top is not a mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise DeclarationError(
                f"{path}: larger than {_LARGEST_BYTES // 10**6} MB, the limit for a declaration"
            )
        root = yaml.compose(content.decode("utf-8"), Loader=_Loader)
        if root is None:
            raise DeclarationError(
                f"{path}:1: the file is empty; `python -m study new NAME` writes a commented one"
            )
        marked = MarkedFile(path, folder)
        marked.top = _Nodes(marked).node(root)
    except yaml.MarkedYAMLError as error:
        # An error at the file's end is reported on its last line.
        found_at = error.problem_mark.line + 1 if error.problem_mark else 1
        line = min(found_at, len(content.splitlines()) or 1)
        tabbed = b"\t" in b"".join(content.split(b"\n")[line - 1 : line])
        problem = error.problem or error.context or ""
        if problem.startswith("but "):  # the rest of a sentence
            problem = f"{error.context}, {problem}"
        tab = "; indent with spaces, not tabs" if tabbed else ""
        raise DeclarationError(f"{path}:{line}: not valid YAML: {problem}{tab}") from None
    except yaml.reader.ReaderError as error:
        line = content[: error.position].count(b"\n") + 1
        raise DeclarationError(
            f"{path}:{line}: not valid YAML: the character #x{error.character:04x} is not allowed"
        ) from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DeclarationError(f"{path}:{line}: not UTF-8: byte 0x{content[error.start]:02x}") from None
    except RecursionError:
        raise DeclarationError(f"{path}: nested too deeply") from None
    except OSError as error:
        raise DeclarationError(f"{path}: can't be read: {error.strerror}") from None
    if not isinstance(marked.top.value, dict):
        raise DeclarationError(f"{path}:{marked.top.line}: the file must be a mapping (key: value)")
    return marked.top


class _Nodes:
    """The conversion of YAML's nodes, which aliases may repeat."""

    def __init__(self, file: MarkedFile) -> None:
        self._file = file
        self._open: set[int] = set()
        self._seen: set[int] = set()
        self._repeated = count()

    def node(self, tree: yaml.Node, around: Node | None = None, name: str = "", key_line: int = 0) -> Node:
        """Return a node with all inside; an alias of what it is in is empty."""
        if id(tree) in self._seen and next(self._repeated) > _MOST_REPEATED:
            raise DeclarationError(f"{self._file.path}: its aliases (*NAME) repeat too many values")
        line = tree.start_mark.line + 1
        node = Node(value="", file=self._file, around=around, name=name, line=line, key_line=key_line or line)
        if id(tree) not in self._open:
            self._open.add(id(tree))
            self._seen.add(id(tree))
            node.value = self._content(tree, node)
            self._open.remove(id(tree))
        return node

    def _content(self, tree: yaml.Node, node: Node) -> Content:
        if isinstance(tree, yaml.SequenceNode):
            numbered = enumerate(tree.value, start=1)
            names = ((f"[{n}]" if isinstance(item, yaml.MappingNode) else "", item) for n, item in numbered)
            return [self.node(item, node, name) for name, item in names]
        if not isinstance(tree, yaml.MappingNode):
            self._check(str(tree.value), node.line)
            return str(tree.value)
        content: dict[str, Node] = {}
        for key, value in tree.value:
            text, line = key.value if isinstance(key, yaml.ScalarNode) else "?", key.start_mark.line + 1
            self._check(text, line)
            if text == "<<":
                self._file.add(line, f"{node.key(text)}: merge keys are not read; write the settings out")
                continue
            if text in content:
                self._file.add(line, f"{node.key(text)} is given twice")
            content[text] = self.node(value, node, text, line)
        return content

    def _check(self, text: str, line: int) -> None:
        """Refuse line breaks and control characters, which would reach terminals, pages and tables."""
        if one_line(text.strip("\n")) != text.strip("\n"):
            self._file.add(
                line, f"{shortened(ascii(text))} has line breaks or control characters; leave them out"
            )
