"""Pickles of PyTorch read as data: nothing in them is imported or called."""

import pickle
import pickletools
from typing import Any, BinaryIO, NamedTuple, Self

import torch

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Storage(NamedTuple):
    """A run of ``numel`` numbers somewhere in the file; a view of it begins at ``start``."""

    key: str
    dtype: torch.dtype
    numel: int
    start: int = 0


class StoredTensor:
    """Where the numbers of a tensor are: strides over a storage, checked to stay inside it.

    Raises:
        ValueError: for a tensor that reaches out of its storage, or is larger than it.
    """

    __slots__ = ("offset", "size", "storage", "stride")

    # __new__ and not __init__: a pickle can make objects without calling the latter.
    def __new__(cls, storage: Storage, offset: int, size: tuple, stride: tuple, *flags: Any) -> Self:
        self = super().__new__(cls)
        if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise ValueError("a tensor without a storage, a size or strides")
        numbers = (offset, storage.start, *size, *stride)
        if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a tensor of an impossible size")
        offset += storage.start
        numel = 1
        for n in size:
            numel *= n
        end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if numel else 0
        if end > storage.numel or numel > storage.numel:
            raise ValueError("a tensor that reaches out of its storage")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride
        return self

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a tensor with a state of its own")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size


class Shell:
    """Stands in for an object of any class; holds the state that was pickled and can do nothing.

    Attributes:
        origin: module and name of the class, e.g. ``"glow.WaveGlow"``.
        state: what the pickle says its attributes are, None where it says nothing.
    """

    origin = ""
    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass


class _Dict(dict):
    """An ordered dict without the attributes that a pickle may give it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Parameter:
    """A parameter is its tensor."""

    def __new__(cls, data: Any, *flags: Any) -> Any:
        return data

    def __setstate__(self, state: Any) -> None:
        pass


# A pickle can call what it finds here, with any arguments, and try to change it. So these are classes that have a
# __setstate__ (the attempt to change the class itself then ends in a TypeError) and only store what they are given.
_KNOWN = {
    "collections.OrderedDict": _Dict,
    "torch._utils._rebuild_tensor": StoredTensor,
    "torch._utils._rebuild_tensor_v2": StoredTensor,
    "torch._utils._rebuild_parameter": _Parameter,
    "torch._utils._rebuild_parameter_with_state": _Parameter,
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    **{f"torch.cuda.{name}": dtype for name, dtype in _STORAGES.items()},
}


class InertUnpickler(pickle.Unpickler):
    """Reads one pickle into dicts, lists, numbers, strings, :class:`StoredTensor` and :class:`Shell`.

    Every name that the pickle wants to import, a function as much as a class, becomes a Shell: calling it makes an
    object that does nothing. PyTorch's own rebuilding functions are replaced by records of their arguments.

    Args:
        file: positioned at the pickle; left behind its end.

    Attributes:
        storages: those met so far, by key.

    Raises:
        Exception: of any kind from ``load()``, if the pickle is truncated or malicious.
    """

    def __init__(self, file: BinaryIO):
        # Names of Python 2 were bytes; what is not UTF-8 among them is of no interest here.
        super().__init__(file, encoding="utf-8", errors="replace")
        self.storages: dict[str, Storage] = {}
        self._file = file

    def load(self) -> Any:
        start = self._file.tell()
        for opcode, argument, position in pickletools.genops(self._file):
            # A memo is numbered in sequence. The unpickler would allocate all up to a number given out of turn.
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > position:
                raise pickle.UnpicklingError("memo numbered out of turn")
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        origin = f"{module}.{name}"
        if origin in _KNOWN:
            return _KNOWN[origin]
        return type("Shell", (Shell,), {"origin": origin})

    def persistent_load(self, saved_id: Any) -> Any:
        kind, *fields = saved_id
        if kind == "module":  # legacy files: (class, path of its source, its source)
            return fields[0]
        if kind != "storage":
            raise ValueError(f"a persistent object of an unknown kind, {str(kind)[:40]!r}")
        dtype, key, _, numel, *view = fields
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or type(numel) is not int or numel < 0:
            raise ValueError("a storage of an unknown type")
        storage = self.storages.setdefault(key, Storage(key, dtype, numel))
        if storage[1:3] != (dtype, numel):
            raise ValueError("a storage of two sizes")
        if view and view[0] is not None:  # legacy files: (key of the view, its offset, its size)
            _, start, _ = view[0]
            return storage._replace(start=start)
        return storage
