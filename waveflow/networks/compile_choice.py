"""Whether a network computes in compiled code, and what it keeps for that."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def has_wide_vectors(like: Tensor) -> bool:
    """Whether the compiled tiles pay where this tensor is: on a CPU with 32 registers of 64 bytes."""
    return like.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512"


class Kept:
    """What was made of some tensors last, made again once they have changed. Copies begin with nothing."""

    def __init__(self):
        self._state: list[Any] | None = None
        self._made: Any = None

    def __call__(self, tensors: Iterable[Tensor], make: Callable[[], Any]) -> Any:
        """What ``make`` gives, or gave while the tensors were as they are."""
        state = [(t.data_ptr(), None if t.is_inference() else t._version) for t in tensors]
        if state != self._state:
            made = make()
            self._made, self._state = made, state  # in this order: other threads may look
            return made
        return self._made

    def __reduce__(self):
        return Kept, ()
