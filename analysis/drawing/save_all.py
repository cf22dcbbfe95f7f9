"""All figures of a report, drawn by this process and others beside it: each takes a fifth of a second."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from analysis.charts.figure_data import FigureData
from analysis.drawing.save import save


@contextmanager
def helpers(count: int) -> Iterator[Executor | None]:
    """Processes that draw, forked from one that loads matplotlib while this one goes on; None for none."""
    if not count:
        yield None
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([save.__module__])
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        for _ in range(count):
            pool.submit(_get_ready)
        yield pool


def save_all(figures: Sequence[FigureData], folder: Path, pool: Executor | None) -> dict[str, str]:
    """Saves figures as `save` does; the files are the same whoever draws them.

    Args:
        figures: In their order.
        folder: Where.
        pool: The helpers: they begin with the last figure, this process with the first.

    Returns:
        The SVG's text of each, by name.
    """
    given = {data.name: pool.submit(save, data, folder) for data in reversed(figures)} if pool else {}
    drawn = {
        data.name: save(data, folder)
        for data in figures
        if data.name not in given or given[data.name].cancel()
    }
    return {
        data.name: drawn[data.name] if data.name in drawn else given[data.name].result() for data in figures
    }


def _get_ready() -> None:
    """Nothing: a helper that has come here has loaded what draws."""
