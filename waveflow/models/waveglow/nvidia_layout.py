"""The tensors of a WaveGlow in a checkpoint of NVIDIA's code: found wherever they are, under one set of names."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from waveflow.errors import InputError
from waveflow.models.waveglow.checkpoint_file import CheckpointFile, first_few, printable
from waveflow.models.waveglow.inert_pickle import Shell, StoredTensor

_KEY = re.compile(r"^((?:.*?\.)??)(upsample|WN|wavenet|convinv)\.(.+)\Z")
_EXPECTED = "upsample.weight, WN.0.start.weight_v, WN.0.in_layers.0.weight_v, WN.0.end.weight, convinv.0.conv.weight"


@dataclass(frozen=True)
class Found:
    """A WaveGlow within a checkpoint: its tensors by NVIDIA's names; of a pickled module, its class and stride."""

    tensors: dict[str, StoredTensor | Tensor]
    origin: str | None
    stride: int | None


def find_waveglow(path: str, content: Any) -> Found:
    """The first WaveGlow in dicts within dicts, looking at ``state_dict`` and ``model`` before the others.

    Raises:
        InputError: if there is none, saying what was expected and what is there, or two in one dict.
    """
    pending, seen = [content], {id(content)}
    for candidate in pending:
        if isinstance(candidate, Shell | Mapping):
            found = _recognise(path, candidate)
            if found:
                return found
        if isinstance(candidate, Mapping):
            for key in sorted(candidate, key=lambda key: key not in ("state_dict", "model")):
                if id(candidate[key]) not in seen:  # a damaged or malicious file can hold circles
                    seen.add(id(candidate[key]))
                    pending.append(candidate[key])
    raise InputError(
        f"{path}: not a WaveGlow of NVIDIA's: expected the keys {_EXPECTED}, ... (any prefix; wavenet for WN in NeMo), "
        f"got {_describe(content)}"
    )


def _recognise(path: str, content: Shell | Mapping) -> Found | None:
    entries, modules = _entries(content)
    names: dict[str, str] = {}
    for key in entries:
        match = _KEY.match(key)
        if match:
            name = f"{'WN' if match[2] == 'wavenet' else match[2]}.{match[3]}"
            if names.setdefault(name, key) != key:
                raise InputError(f"{path}: expected one WaveGlow, got two: {printable(names[name])}, {printable(key)}")
    if "upsample.weight" not in names or not any(name.startswith("WN.0.") for name in names):
        return None
    upsample = names["upsample.weight"].removesuffix(".weight")
    module = modules.get(upsample.removesuffix("upsample").removesuffix("."))
    tensors = {name: entries[key] for name, key in names.items()}
    return Found(tensors, module and module.origin, _stride(modules.get(upsample)))


def _entries(content: Shell | Mapping) -> tuple[dict[str, StoredTensor | Tensor], dict[str, Shell]]:
    """Tensors of a dict, or of a pickled ``nn.Module`` as its state dict would name them, and all modules by name."""
    if isinstance(content, Mapping):
        return {key: value for key, value in content.items() if isinstance(key, str) and _is_tensor(value)}, {}
    tensors, modules, seen = {}, {}, set()
    pending = [("", content)]
    while pending:
        name, module = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        modules[name] = module
        dot = f"{name}." if name else ""
        for kind in ("_parameters", "_buffers"):
            for key, value in _items(_attribute(module, kind)):
                if _is_tensor(value):
                    tensors[f"{dot}{key}"] = value
        children = [(f"{dot}{key}", value) for key, value in _items(_attribute(module, "_modules"))]
        pending += [(name, value) for name, value in reversed(children) if isinstance(value, Shell)]
    return tensors, modules


def _attribute(module: Shell, name: str) -> Any:
    return module.state.get(name) if isinstance(module.state, Mapping) else None


def _items(mapping: Any) -> list[tuple[Any, Any]]:
    return list(mapping.items()) if isinstance(mapping, Mapping) else []


def _is_tensor(value: Any) -> bool:
    return isinstance(value, StoredTensor | Tensor)


def _stride(upsample: Shell | None) -> int | None:
    stride = _attribute(upsample, "stride") if upsample else None
    stride = stride[0] if isinstance(stride, tuple) and len(stride) == 1 else stride
    return stride if type(stride) is int and stride > 0 else None


def _describe(content: Any) -> str:
    """In a few words, what is there instead of a WaveGlow."""
    where = ""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Shell | Mapping):
            content, where = content[key], f" under {key!r}"
    if isinstance(content, Shell):
        return f"a {printable(content.origin)} with {first_few(_entries(content)[0])}{where}"
    if isinstance(content, Mapping):
        return f"{first_few(content)}{where}"
    return f"a {type(content).__name__}"


@dataclass(frozen=True)
class Convolution:
    """Weight and bias; where it is weight-normed, ``weight`` is the direction and ``norm`` its length."""

    weight: Tensor
    norm: Tensor | None
    bias: Tensor

    def plain(self) -> Tensor:
        """The weight, weight norm multiplied out."""
        if self.norm is None:
            return self.weight
        return self.weight * (self.norm / _row_norms(self.weight))

    def normed(self) -> tuple[Tensor, Tensor]:
        """(norm, direction) of weight norm."""
        if self.norm is not None:
            return self.norm, self.weight
        norms = _row_norms(self.weight)
        # A row of zeros has no direction: any will do, with the norm 0.
        return norms, torch.where(norms > 0, self.weight, 1.0)

    def rows(self, first: int, last: int) -> Self:
        """Those output channels alone."""
        norm = None if self.norm is None else self.norm[first:last]
        return dataclasses.replace(self, weight=self.weight[first:last], norm=norm, bias=self.bias[first:last])

    @classmethod
    def stack(cls, parts: list[Self]) -> Self:
        """Convolutions of the same input as one: weight norm is by row, so that its parameters stack too."""
        norms, weights = zip(*(part.normed() for part in parts), strict=True)
        return cls(torch.cat(weights), torch.cat(norms), torch.cat([part.bias for part in parts]))


def _row_norms(weight: Tensor) -> Tensor:
    return weight.flatten(1).norm(dim=1)[:, None, None]


class Weights:
    """The tensors of a checkpoint, taken by name and checked against the shapes that the sizes demand.

    Raises:
        InputError: from every method, if what it needs is not there or has another shape.
    """

    def __init__(self, file: CheckpointFile, tensors: Mapping[str, StoredTensor | Tensor]):
        self.path = file.path
        self._read = file.read
        self._tensors = tensors
        # NeMo keeps the inverse 1x1 convolutions beside the direct ones once they were used.
        self._unused = {name for name in tensors if not name.endswith(".inv_conv.weight")}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def count(self, name: str) -> int:
        """Number of entries of the list ``name``, numbered from 0."""
        pattern = re.compile(rf"{re.escape(name)}\.(\d+)\.")
        indices = {match[1] for match in map(pattern.match, self._tensors) if match}
        return next(i for i in range(len(indices) + 1) if str(i) not in indices)

    def shape(self, name: str) -> tuple[int, int, int]:
        """Shape of the weight of a convolution."""
        for spelling in ("weight_v", "parametrizations.weight.original1", "weight"):
            tensor = self._tensors.get(f"{name}.{spelling}")
            if tensor is not None:
                if len(tensor.shape) != 3 or 0 in tensor.shape:
                    raise InputError(
                        f"{self.path}: expected {name}.{spelling} of three dimensions, got {tuple(tensor.shape)}"
                    )
                return tuple(tensor.shape)
        raise InputError(f"{self.path}: lacks {name}.weight_v (or {name}.weight, where weight norm was removed)")

    def tensor(self, name: str, *shape: int) -> Tensor:
        """One entry, in float32."""
        if name not in self._tensors:
            raise InputError(f"{self.path}: lacks {name}")
        stored = self._tensors[name]
        if tuple(stored.shape) != shape:
            raise InputError(f"{self.path}: expected {name} of shape {shape}, got {tuple(stored.shape)}")
        tensor = self._read(stored)
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise InputError(f"{self.path}: expected {name} to hold finite floats, got others")
        self._unused.discard(name)
        return tensor.float()

    def convolution(self, name: str, *shape: int) -> Convolution:
        """A convolution with a weight of that shape, in any spelling of weight norm."""
        rows = shape[1] if name == "upsample" else shape[0]  # a transposed convolution is (in, out, kernel)
        bias = self.tensor(f"{name}.bias", rows)
        for norm, direction in (
            ("weight_g", "weight_v"),
            ("parametrizations.weight.original0", "parametrizations.weight.original1"),
        ):
            if f"{name}.{direction}" in self:
                length = self.tensor(f"{name}.{norm}", shape[0], 1, 1)
                return Convolution(self.tensor(f"{name}.{direction}", *shape), length, bias)
        return Convolution(self.tensor(f"{name}.weight", *shape), None, bias)

    def require_all_used(self) -> None:
        """Refuse a checkpoint with weights that nobody took."""
        if self._unused:
            raise InputError(
                f"{self.path}: holds weights that WaveGlow has no place for: {first_few(sorted(self._unused))}"
            )
