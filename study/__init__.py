"""Plan, run and read scaling studies of CLIP; ``from study import Study`` opens one in Python."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from study.show.opened import OpenedStudy as Study

__all__ = ["Study"]


def __getattr__(name: str) -> object:
    """Import `Study` at its first use, so that the command line starts without pandas."""
    if name == "Study":
        from study.show.opened import OpenedStudy  # noqa: PLC0415

        return OpenedStudy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
