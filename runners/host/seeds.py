"""Seeds derived from a trial's seed: random state is a function of (seed, purpose, index) alone."""

import hashlib

import torch


def step_generator(seed: int, step: int, *, rank: int = 0) -> torch.Generator:
    """Seed a step on a rank: return a generator, and seed torch's global one, used by patch dropout."""
    derived = derive_seed(seed, "step", step)
    if rank:
        derived = derive_seed(derived, "rank", rank)
    seed_global(derived)
    return torch.Generator().manual_seed(derived)


def seed_global(seed: int) -> None:
    """Seed torch's global generators: that of the CPU and, once CUDA is in use, those of the GPUs.

    `torch.manual_seed` gives the same numbers, but for each kind of device that is not in use it formats the
    call stack, which takes a few per cent of a small step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def derive_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Derive an independent 63-bit seed from a trial's seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
