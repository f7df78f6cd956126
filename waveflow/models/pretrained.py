"""What every model shares: a configuration, presets, and checkpoints that hold no code."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors
import safetensors.torch
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import nn

from waveflow.atomic import write_whole
from waveflow.audio import MelConfig
from waveflow.errors import InputError
from waveflow.models.field_types import require_types
from waveflow.models.shipped import find_shipped

FORMAT_VERSION = 1
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
_MODELS: dict[str, type["PretrainedModel"]] = {}


class PretrainedModel(nn.Module):
    """A model with a configuration of its own, that can be saved to a folder and loaded from one.

    A subclass names its frozen dataclass ``Config`` and its ``PRESETS`` (name -> fields that differ from the
    defaults), and builds itself in :meth:`build` from ``self.config``. It is constructed with the fields as keywords.

    Raises:
        InputError: for a field that the configuration does not have, or values it refuses.
    """

    Config: ClassVar[type]
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    made_for_inference: bool = False  # set on copies whose weights are no longer those of a checkpoint

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "Config"):
            _MODELS[cls.__name__] = cls

    def __init__(self, **fields: Any):
        super().__init__()
        self.config = self.make_config(**fields)
        self.build()

    @classmethod
    def make_config(cls, **fields: Any) -> Any:
        """The configuration with these fields.

        Raises:
            InputError: for a field that the configuration does not have or misses, values of another type, or values
                it refuses.
        """
        known = dataclasses.fields(cls.Config)
        unknown = sorted(set(fields) - {field.name for field in known})
        if unknown:
            names = ", ".join(sorted(field.name for field in known))
            raise InputError(f"{cls.__name__} has no field {', '.join(unknown)}; its fields are {names}")
        defaults = (dataclasses.MISSING, dataclasses.MISSING)
        required = {field.name for field in known if (field.default, field.default_factory) == defaults}
        if missing := sorted(required - set(fields)):
            raise InputError(f"{cls.__name__} expects {', '.join(missing)}, which has no default")
        require_types(cls.__name__, cls.Config, fields)
        return cls.Config(**fields)

    def build(self) -> None:
        """Make the layers from ``self.config``."""
        raise NotImplementedError

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """A fresh model with the configuration of that name, single fields replaced.

        Raises:
            InputError: for an unknown name, listing those there are.
        """
        if name not in cls.PRESETS:
            raise InputError(f"{cls.__name__} has no preset {name!r}, expected one of {', '.join(cls.PRESETS)}")
        return cls(**{**cls.PRESETS[name], **overrides})

    def save_pretrained(self, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``, each whole or not at all; equal models give equal bytes.

        Args:
            folder: made if it is not there.
            dtype: round parameters to it, such as ``torch.bfloat16`` for half the bytes; :meth:`from_pretrained` gives
                them back in float32. None: as they are.

        Raises:
            InputError: for a copy made for inference, which could not be loaded again, or parameters that are not
                finite in that dtype.
            OSError: if the folder cannot be made or written.
        """
        if self.made_for_inference:
            raise InputError(
                f"a copy of {type(self).__name__} made for inference cannot be saved: save the model itself"
            )
        config = {"model": type(self).__name__, "format_version": FORMAT_VERSION, "config": _to_json(self.config)}
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(self.state_dict().items())}
        for name in dict(self.named_parameters()) if dtype is not None else ():
            weights[name] = weights[name].to(dtype)
            if not weights[name].isfinite().all():
                raise InputError(f"{name} holds values that are not finite in {dtype}")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / WEIGHTS_FILE, safetensors.torch.save(weights))
        write_whole(folder / CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode())

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, device: torch.device | str = "cpu") -> Self:
        """Load a model, in evaluation mode.

        Args:
            source: a folder written by :meth:`save_pretrained`, the name of a model that ships with the package, or the
                id of a repository on the Hugging Face hub.
            device: where to put it.

        Raises:
            InputError: if there is no checkpoint, or it is truncated, of another model or of another format version.
        """
        folder = _resolve(source)
        name, fields = _read_config(folder)
        model_class = _MODELS.get(name)
        if model_class is None:
            raise InputError(f"{folder}: holds a {name!r}, this version of waveflow has {', '.join(sorted(_MODELS))}")
        if not issubclass(model_class, cls):
            raise InputError(f"{folder}: holds a {name}, expected a {cls.__name__}")
        try:
            weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
        except FileNotFoundError:
            raise InputError(f"{folder}: has a {CONFIG_FILE} but no {WEIGHTS_FILE}") from None
        except safetensors.SafetensorError as error:
            raise InputError(f"{folder / WEIGHTS_FILE}: truncated or not a safetensors file ({error})") from None
        try:
            model = model_class(**_from_json(model_class.Config, fields))
        except (TypeError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise InputError(f"{folder / CONFIG_FILE}: {error}") from None
            raise InputError(f"{folder / CONFIG_FILE}: not the configuration of a {name} ({error})") from None
        model._load_weights(weights, str(folder / WEIGHTS_FILE))
        return model.to(device).eval()

    def _load_weights(self, weights: Mapping[str, torch.Tensor], origin: str) -> None:
        own = self.state_dict()
        missing, surplus = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
        if missing or surplus:
            raise InputError(
                f"{origin}: does not fit the configuration beside it: {len(missing)} tensors missing "
                f"({', '.join(missing[:2]) or 'none'}), {len(surplus)} unknown ({', '.join(surplus[:2]) or 'none'})"
            )
        for key, tensor in weights.items():
            if tensor.shape != own[key].shape:
                raise InputError(f"{origin}: {key} is {tuple(tensor.shape)}, expected {tuple(own[key].shape)}")
            if not tensor.isfinite().all():
                raise InputError(f"{origin}: {key} holds values that are not finite")
        self.load_state_dict(weights)


def load_model(source: str | os.PathLike, device: torch.device | str = "cpu") -> PretrainedModel:
    """Load a checkpoint of any model of the library; see :meth:`PretrainedModel.from_pretrained`."""
    return PretrainedModel.from_pretrained(source, device)


def read_config(source: str | os.PathLike) -> tuple[str, dict[str, Any]]:
    """Model name and configuration fields (as in JSON) of a checkpoint, without loading its weights.

    Raises:
        InputError: as :meth:`PretrainedModel.from_pretrained`.
    """
    return _read_config(_resolve(source))


def _read_config(folder: Path) -> tuple[str, dict[str, Any]]:
    path = folder / CONFIG_FILE
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{folder}: no checkpoint here (expected {CONFIG_FILE} and {WEIGHTS_FILE})") from None
    except ValueError:
        raise InputError(f"{path}: not JSON") from None
    if not isinstance(content, dict) or not {"model", "format_version", "config"} <= content.keys():
        raise InputError(f"{path}: expected the keys model, format_version and config, so not a waveflow checkpoint")
    if content["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{path}: has format version {content['format_version']!r}, this version of waveflow reads {FORMAT_VERSION}"
        )
    if not isinstance(content["model"], str) or not isinstance(content["config"], dict):
        raise InputError(f"{path}: expected the name of a model and a mapping of its fields")
    return content["model"], content["config"]


def _resolve(source: str | os.PathLike) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{folder}: expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, got a file")
    text = os.fspath(source)
    if (shipped := find_shipped(text)) is not None:
        return shipped
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise InputError(f"{folder}: no such folder")
    try:
        return Path(snapshot_download(text, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{text}: no such folder, and not to be had from the Hugging Face hub ({reason})") from None


def _to_json(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def _from_json(config_class: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(fields)
    for field in dataclasses.fields(config_class):
        if field.type is MelConfig and isinstance(fields.get(field.name), Mapping):
            fields[field.name] = MelConfig.from_dict(fields[field.name])
    return fields
