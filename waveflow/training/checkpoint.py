"""Training state in one file: tensors and plain values in safetensors, nothing that could execute."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from waveflow.errors import InputError

PARTIAL = ".partial-"
_METADATA_KEY = "waveflow"


def write_checkpoint(path: Path, tree: Any) -> None:
    """Write nested dicts, lists and tuples of tensors, numbers, strings, booleans and None, whole or not at all.

    Tensors are stored by their path in the tree (``model.layers.0.weight``), the rest as JSON in the file's metadata;
    any tool that reads safetensors can look inside.

    Raises:
        OSError, SafetensorError: if the file cannot be written; an older file of that name is left as it was.
        TypeError: if the tree holds anything else.
    """
    tensors: dict[str, torch.Tensor] = {}
    encoded = json.dumps(_encode(tree, "", tensors))
    replace_file(path, lambda partial: save_file(tensors, partial, {_METADATA_KEY: encoded}))


def read_checkpoint(path: Path) -> Any:
    """The tree that :func:`write_checkpoint` was given, its tensors on the CPU.

    Raises:
        InputError: if the file is truncated or not such a checkpoint.
        OSError: if it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            encoded = (file.metadata() or {}).get(_METADATA_KEY)
            if encoded is None:
                raise InputError(f"{path} is not a checkpoint of a waveflow training run")
            return _decode(json.loads(encoded), file.get_tensor)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged and cannot be read ({error})") from None


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file under a temporary name beside ``path``, then put it there in one step.

    Whoever looks at ``path``, also after a crash at any moment, sees the old content or the new one.

    Raises:
        OSError: from the file system, or whatever ``write`` raises; nothing of the new file is left then.
    """
    partial = path.with_name(PARTIAL + path.name)
    try:
        write(partial)
        move_durably(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def move_durably(source: Path, target: Path) -> None:
    """Rename a file on the same file system, with its content and its name on the disk before returning."""
    _sync(source)
    os.replace(source, target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = name or "tensor"
        while name in tensors:
            name += "'"
        # A copy each: safetensors refuses tensors that share memory, as tied weights do.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[key, _encode(item, _join(name, key), tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, _join(name, index), tensors) for index, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values, but {name} is a {type(value).__name__}")


def _decode(value: Any, tensor: Callable[[str], torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensor(content)
    if kind == "dict":
        return {key: _decode(item, tensor) for key, item in content}
    items = [_decode(item, tensor) for item in content]
    return items if kind == "list" else tuple(items)


def _join(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)
