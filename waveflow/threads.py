"""How many CPU threads PyTorch computes with."""

import os

import torch

from waveflow.errors import InputError


def use_threads(count: int) -> None:
    """Let PyTorch compute with so many CPU threads; far more than there are cores would end the process.

    Raises:
        InputError: for less than one, or more than the machine has cores; speaks of the flag ``--threads``.
    """
    cores = os.cpu_count() or 1
    if count < 1:
        raise InputError(f"--threads expects at least 1, got {count}")
    if count > cores:
        raise InputError(f"--threads expects at most {cores}, the cores of this machine, got {count}")
    torch.set_num_threads(count)
