"""Drawing of all figures of a report in several processes; each figure takes about 0.2 s."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from analysis.charts.figure_data import FigureData
from analysis.drawing.save import save


@contextmanager
def helpers(count: int) -> Iterator[Executor | None]:
    """Context manager of drawing processes, which load matplotlib meanwhile. None without any."""
    if not count:
        yield None
        return
    # Not the fork server: a process has one, and that of a process that also runs trials preloads torch.
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in range(count):
            pool.submit(_get_ready)
        yield pool


def save_all(
    figures: Sequence[FigureData],
    folder: Path,
    pool: Executor | None,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, str]:
    """Save figures as `save` does; the files do not depend on the process that draws them.

    Args:
        figures: Figures in their order.
        folder: Folder of the files.
        pool: Helper processes; they begin with the last figure, this process with the first.
        progress: Takes the number of figures that are drawn, and of all.

    Returns:
        Name → SVG of each figure.
    """
    given = {data.name: pool.submit(save, data, folder) for data in reversed(figures)} if pool else {}
    drawn: dict[str, str] = {}
    for data in figures:
        if data.name not in given or given[data.name].cancel():
            drawn[data.name] = save(data, folder)
            helped = sum(one.done() and not one.cancelled() for one in given.values())
            progress(len(drawn) + helped, len(figures))
    found = {
        data.name: drawn[data.name] if data.name in drawn else given[data.name].result() for data in figures
    }
    progress(len(figures), len(figures))
    return found


def _get_ready() -> None:
    """Do nothing; a helper process that runs this has imported the drawing code."""
