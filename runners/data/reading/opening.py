"""Opening of a trial's pairs: few are decoded in memory, many are streamed."""

from collections.abc import Sequence

from runners.data.pool.damage import DAMAGE_TOLERANCE
from runners.data.reading.in_memory_set import InMemorySet, decode
from runners.data.reading.streamed_set import LOADER_BYTES, StreamedSet
from runners.data.reading.training_data import Source, Tokens, TrainingData

IN_MEMORY_BYTES = 8 * 2**30
"""Decoded size above which a subset is streamed; fixed, because the order of samples depends on it."""


def open_data(  # noqa: PLR0913 - independent options
    sources: Sequence[Source],
    image_size: int,
    tokens: Tokens,
    *,
    threads: int = 1,
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
    tolerance: float = DAMAGE_TOLERANCE,
    loader_bytes: int = LOADER_BYTES,
) -> TrainingData:
    """Open a trial's pairs for training: from shared memory, from memory, or streamed, by their size.

    Ranks together see the same batches as a single process would; each takes its part of every batch.

    Args:
        sources: The pairs of each pool.
        image_size: Side S in pixels.
        tokens: Converts captions to ids.
        threads: Decoding threads for data held in memory.
        workers: Processes that read and decode streamed data.
        rank: Index of this process among those that train the model.
        ranks: Number of these processes.
        tolerance: Share of a pool's part that may be damaged.
        loader_bytes: Memory of a rank that workers fill ahead of training.

    Raises:
        ValueError: More of a part held in memory is damaged.
    """
    if sum(len(source.rows) for source in sources) * 3 * image_size**2 > IN_MEMORY_BYTES:
        return StreamedSet(
            sources=sources,
            image_size=image_size,
            tokens=tokens,
            workers=workers,
            rank=rank,
            ranks=ranks,
            tolerance=tolerance,
            loader_bytes=loader_bytes,
        )
    held = [decode(source, image_size, tokens, threads, tolerance) for source in sources]
    return InMemorySet(parts=held, rank=rank, ranks=ranks)
