"""How many CPU threads PyTorch computes with."""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

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
    return getattr(_outside, "threads", None) or torch.get_num_threads()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread, for the calling thread alone, while threads of our own share the work.

    For milliseconds after each use OpenMP's threads wait in a loop, which would take half of the cores from ours.
    Where PyTorch's libraries cannot be told so, nothing is changed.
    """
    before = torch.get_num_threads()  # which also begins this thread's number, before it is changed
    limits = _limits()
    if limits is None or before == 1:
        yield
        return
    # torch.set_num_threads would change what threads begin with that are born meanwhile.
    set_openmp, set_mkl = limits
    _outside.threads = before
    set_openmp(1)
    of_mkl = set_mkl(1)
    try:
        yield
    finally:
        set_mkl(of_mkl)
        set_openmp(before)
        _outside.threads = None


_outside = threading.local()


@cache
def _limits() -> tuple[Callable[[int], int], Callable[[int], int]] | None:
    """What sets the calling thread's own number of OpenMP's threads, and of MKL's (which gives back the one before)."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return library.omp_set_num_threads, library.MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):
        return None
