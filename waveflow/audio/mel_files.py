"""Mel files that carry their configuration, and bare ones that need it from elsewhere."""

import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor

from waveflow.atomic import write_whole
from waveflow.audio.mel import check_mel
from waveflow.audio.mel_config import MEL_PRESETS, MelConfig
from waveflow.errors import InputError

MEL_SUFFIXES = (".safetensors", ".npz", ".npy", ".pt")
"""Suffixes that ``read_mel`` reads; the first two carry a configuration and are what ``write_mel`` writes."""

_KEY = "mel_config"


def write_mel(path: str | os.PathLike, mel: Tensor, config: MelConfig) -> None:
    """Write a mel and its configuration to a .safetensors or .npz file, whole or not at all.

    The tensor is called ``mel``; the configuration is JSON: the metadata entry ``mel_config`` of safetensors, an array
    of that name in npz. Equal mels give equal bytes.

    Args:
        path: ends in .safetensors or .npz.
        mel: (n_mels, frames) or (1, n_mels, frames), written as (n_mels, frames) float32.
        config: how the mel was made.

    Raises:
        InputError: for another suffix, or a mel that ``check_mel`` refuses.
        OSError: naming the file, if it cannot be written; what was there is untouched.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".safetensors", ".npz"):
        raise InputError(f"{path}: mels are written as .safetensors or .npz, not {suffix or 'without suffix'}")
    mel = _single(mel, config, str(path)).contiguous().cpu()
    description = json.dumps(config.to_dict(), sort_keys=True)
    if suffix == ".safetensors":
        content = safetensors.torch.save({"mel": mel}, {_KEY: description})
    else:
        buffer = io.BytesIO()
        np.savez(buffer, mel=mel.numpy(), **{_KEY: np.array(description)})
        content = buffer.getvalue()
    write_whole(path, content)


def read_mel(
    path: str | os.PathLike, config: MelConfig | None = None, owner: str = "the model"
) -> tuple[Tensor, MelConfig]:
    """Read a mel and the configuration it was made with.

    Nothing in the file is ever executed: .npy and .npz without pickles, .pt with ``weights_only``.

    Args:
        path: .safetensors or .npz as ``write_mel`` makes them, or a bare .npy, .pt, .npz or .safetensors with one array
            (or one called ``mel``).
        config: the configuration that is expected; has to be given for a bare file, has to equal the one inside
            otherwise.
        owner: what ``config`` belongs to, for the message.

    Returns:
        (n_mels, frames) float32, and its configuration.

    Raises:
        InputError: naming the file: missing, not readable, bare without ``config``, of another configuration than
            ``config``, transposed, or refused by ``check_mel``.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in MEL_SUFFIXES:
        raise InputError(f"{path}: mels are read from {', '.join(MEL_SUFFIXES)}, not {suffix or 'without suffix'}")
    array, inside = _load(Path(path), suffix)
    if inside is None and config is None:
        raise InputError(
            f"{path}: does not say how it was made, pass --mel-config NAME|FILE ({', '.join(MEL_PRESETS)})"
        )
    if inside is not None and config is not None:
        config.require_same(inside, this=owner, that=str(path))
    config = inside or config
    return _single(array, config, str(path)), config


def read_mel_config(name_or_path: str | os.PathLike) -> MelConfig:
    """A preset by its name, or a configuration from a .json or .yaml file.

    The file holds the fields of ``MelConfig``, or holds them under the key ``mel_config`` or ``mel`` (as the
    ``config.json`` of a model may).

    Raises:
        InputError: for what is neither a preset nor such a file.
    """
    name = os.fspath(name_or_path)
    if name in MEL_PRESETS:
        return MEL_PRESETS[name]
    if Path(name).suffix.lower() not in (".json", ".yaml", ".yml"):
        raise InputError(
            f"unknown mel configuration {name!r}, expected {', '.join(MEL_PRESETS)} or a .json or .yaml file"
        )
    try:
        text = Path(name).read_text()
        fields = json.loads(text) if name.lower().endswith(".json") else yaml.load(text, _YAML)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{name}: {_reason(error)}") from error
    if isinstance(fields, dict):
        fields = next((fields[key] for key in (_KEY, "mel") if isinstance(fields.get(key), dict)), fields)
    return _config(fields, name)


class _YAML(yaml.SafeLoader):
    """YAML 1.1 reads 1e-5 as a string, for want of a dot; everyone else reads a number."""


_YAML.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _load(path: Path, suffix: str) -> tuple[Any, MelConfig | None]:
    """The array of a file, and its configuration if it has one."""
    try:
        content = path.read_bytes()
        if suffix == ".safetensors":
            arrays = safetensors.torch.load(content)
            with safetensors.safe_open(path, "pt") as file:
                description = (file.metadata() or {}).get(_KEY)
        elif suffix == ".npz":
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            description = arrays.pop(_KEY, None)
            description = None if description is None else str(description)
        else:
            loaded = (
                np.load(io.BytesIO(content), allow_pickle=False)
                if suffix == ".npy"
                else torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            )
            arrays, description = loaded if isinstance(loaded, dict) else {"mel": loaded}, None
    except OSError as error:
        raise InputError(f"{path}: {_reason(error)}") from error
    except (
        safetensors.SafetensorError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        ValueError,
        RuntimeError,
        EOFError,
        KeyError,
    ) as error:
        raise InputError(f"{path}: not a {suffix} file of plain tensors, or damaged") from error
    if "mel" not in arrays and len(arrays) != 1:
        names = ", ".join(map(str, list(arrays)[:5])) or "nothing"
        raise InputError(f"{path}: expected one array, or one called mel, got {names}")
    array = arrays["mel"] if "mel" in arrays else next(iter(arrays.values()))
    return array, None if description is None else _config(_json(description, path), str(path))


def _single(mel: Any, config: MelConfig, name: str) -> Tensor:
    if isinstance(mel, np.ndarray) and np.issubdtype(mel.dtype, np.floating):
        mel = torch.from_numpy(mel.astype(np.float32))
    check_mel(mel, config, name)
    if mel.ndim == 3:
        if mel.shape[0] != 1:
            raise InputError(f"{name} holds {mel.shape[0]} mels, expected ({config.n_mels}, frames)")
        mel = mel[0]
    return mel.detach().float()


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: its mel configuration is not JSON") from error


def _config(fields: Any, name: str) -> MelConfig:
    try:
        return MelConfig.from_dict(fields)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
