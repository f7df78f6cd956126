"""Whether a network computes in compiled code, and what it keeps for that."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def has_wide_vectors(like: Tensor) -> bool:
    """Whether the compiled tiles pay where this tensor is: on a CPU with 32 registers of 64 bytes."""
    return like.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512"


def is_plain(tensor: Tensor | None) -> bool:
    """Whether a tensor is numbers and no more: not one that PyTorch's transforms or traces follow."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling() or forward_ad._current_level >= 0:
        return False
    return tensor is None or not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


class Kept:
    """What was made of some tensors last, made again once they have changed. Copies begin with nothing.

    Changes behind PyTorch's back are not seen: those of ``tensor.data``, and of tensors of inference mode in place.
    """

    def __init__(self):
        self._seen: list[tuple[Tensor, int | None]] | None = None
        self._made: Any = None

    def __call__(self, tensors: Iterable[Tensor], make: Callable[[], Any]) -> Any:
        """What ``make`` gives, or gave while the tensors were as they are."""
        # The memory seen is held, so that nothing else can come to lie at its address.
        seen = [(t.detach(), None if t.is_inference() else t._version) for t in tensors]
        if self._seen is None or [_place(*s) for s in seen] != [_place(*s) for s in self._seen]:
            made = make()
            self._made, self._seen = made, seen  # in this order: other threads may look
            return made
        return self._made

    def __reduce__(self):
        return Kept, ()


def _place(tensor: Tensor, version: int | None) -> tuple[int, int | None]:
    return tensor.data_ptr(), version
