"""How many CPU threads PyTorch computes with."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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


def own_threads() -> int:
    """Threads that code of our own shares its work among: PyTorch's number, also where PyTorch is held to one."""
    with _callers.lock:
        return _callers.threads if _callers.inside else torch.get_num_threads()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread while threads of our own share the work, for several callers side by side.

    For milliseconds after each use OpenMP's threads wait in a loop, which would take half of the cores from ours.
    """
    # Each thread has its own number, but a thread that first asks for it takes over the last that any has set. So what
    # all go back to is what the first of them began with.
    with _callers.lock:
        if not _callers.inside:
            _callers.threads = torch.get_num_threads()
        _callers.inside += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _callers.lock:
            _callers.inside -= 1
            torch.set_num_threads(_callers.threads)


class _Callers:
    def __init__(self):
        self.lock, self.inside, self.threads = threading.Lock(), 0, 1


_callers = _Callers()
