"""Seeds derived from a trial's seed: random state is a function of (seed, purpose, index) alone."""

import hashlib

import torch


def step_generator(seed: int, step: int, *, rank: int = 0) -> torch.Generator:
    """Seed a step on a rank: return a generator, and seed torch's global one, used by patch dropout."""
    derived = derive_seed(seed, "step", step)
    if rank:
        derived = derive_seed(derived, "rank", rank)
    torch.manual_seed(derived)
    return torch.Generator().manual_seed(derived)


def derive_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Derive an independent 63-bit seed from a trial's seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
