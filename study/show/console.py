"""Console that never runs the escape codes in the texts that it shows."""

from collections.abc import Iterator
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from budgets.names import printable


class PlainConsole(Console):
    """Console that passes on only rich's own escape codes; those in names and messages are written out.

    Brackets and colons in them are no markup.
    """

    def __init__(
        self, *, file: IO[str] | None = None, force_terminal: bool | None = None, width: int | None = None
    ) -> None:
        super().__init__(
            file=file, force_terminal=force_terminal, width=width,
            markup=False, emoji=False, highlight=False, soft_wrap=True,
        )  # fmt: skip

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield the pieces of a renderable."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(printable(piece.text), piece.style)

    def on_broken_pipe(self) -> None:
        """Raise the error, as for any other stream; rich would exit."""
        raise BrokenPipeError
