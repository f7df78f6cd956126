"""The python batches of CIFAR-10: pickles of Python 2, read as data. Nothing in them is imported or called."""

import math
import pickle
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from waveflow.errors import InputError


def read_batch(path: Path) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32), uint8, and labels (N,), int64, of one batch file.

    Raises:
        InputError: for a file that is no such batch, or holds anything but arrays, lists, strings and numbers.
        OSError: if it is not there or cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            batch = _Unpickler(file, encoding="bytes").load()
        except Exception as error:  # a damaged pickle can fail in any way
            reason = str(error) if isinstance(error, _Refused) else "damaged or not a pickle"
            raise InputError(f"{path}: not a batch of CIFAR-10 ({reason})") from None
    data, labels = (batch.get(name) for name in (b"data", b"labels")) if isinstance(batch, dict) else (None, None)
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise InputError(f"{path}: not a batch of CIFAR-10 (expected an array named data and a list named labels)")
    if data.shape != (len(labels), 3 * 32 * 32) or not all(type(label) is int and label >= 0 for label in labels):
        raise InputError(f"{path}: expected {len(labels)} rows of 3072 bytes and as many labels, got {data.shape}")
    images = np.frombuffer(data.content, np.uint8).reshape(-1, 3, 32, 32)
    return torch.from_numpy(images.copy()), torch.tensor(labels, dtype=torch.int64)


class _Refused(ValueError):
    """What a pickle asked for and does not get."""


class _Array:
    """Shape and bytes of an array of uint8, as NumPy pickles it."""

    shape: tuple[int, ...] = ()
    content: bytes = b""

    def __new__(cls, *arguments: Any) -> Self:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if not sizes or not isinstance(dtype, _Dtype) or dtype.name not in (b"u1", "u1") or fortran:
            raise _Refused("an array of other than bytes")
        if not isinstance(content, bytes) or len(content) != math.prod(shape):
            raise _Refused("an array without all of its bytes")
        self.shape, self.content = shape, content


class _Dtype:
    """The name of a NumPy type."""

    name: Any = None

    def __new__(cls, *arguments: Any) -> Self:
        self = super().__new__(cls)
        self.name = arguments[0] if arguments else None
        return self

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        known = {"_reconstruct": _Array, "ndarray": _Array, "dtype": _Dtype}
        if module.split(".")[0] != "numpy" or name not in known:
            raise _Refused(f"it wants to import {module}.{name}")
        return known[name]
