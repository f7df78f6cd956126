"""Random numbers as a function of where in the run they are drawn."""

import random

import numpy as np
import torch


def seed_generators(*key: int) -> None:
    """Put the global generators of python, numpy and torch into a state that follows from ``key`` alone.

    For torch: those of the CPU and, once CUDA is in use, of the current GPU. The trainer calls it before every step
    with (seed, purpose, rank, step). So the generators need no place in a checkpoint, and nothing that validation
    draws can change what training sees.

    Args:
        key: integers, 0 or more.

    Example:
        >>> seed_generators(1, 2); a = torch.rand(3)
        >>> seed_generators(1, 2); torch.equal(a, torch.rand(3))
        True
    """
    words = np.random.SeedSequence(key).generate_state(4, np.uint32)
    seed = int.from_bytes(words[:2].tobytes(), "little")
    random.seed(seed)
    np.random.seed(words)
    # Not torch.manual_seed: until CUDA is first used it keeps every call, with a stack trace, in a list.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
