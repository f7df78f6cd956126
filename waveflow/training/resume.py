"""Does a checkpoint belong to this model and these settings?"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from waveflow.errors import InputError


def describe_model(model: nn.Module) -> dict[str, Any]:
    """The model's class and the fields of its ``config``, where it has one, as plain values."""
    config = getattr(model, "config", None)
    fields = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else {}
    return {"model": type(model).__name__} | json.loads(json.dumps(fields, default=str))


def require_same_model(saved: Mapping[str, Any], weights: Mapping[str, Tensor], model: nn.Module, where: str) -> None:
    """Refuse a checkpoint of another model.

    Args:
        saved: :func:`describe_model` of the model that was trained.
        weights: its state_dict.
        model: the model that shall continue.
        where: names the checkpoint.

    Raises:
        InputError: naming the configuration fields that differ, or else the tensors.
    """
    if different := list_differences(saved, describe_model(model)):
        raise InputError(f"{where} is of another model: {different}")
    theirs = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in weights.items()}
    ours = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in model.state_dict().items()}
    if different := list_differences(theirs, ours):
        raise InputError(f"{where} does not fit the model: {different}")


def require_same_optimizer(name: str, saved: dict[str, Any], optimizer: Optimizer, where: str) -> None:
    """Refuse the state of another optimizer; let how it is computed and Adam's betas be those of the present one.

    Args:
        name: class of the optimizer that was used.
        saved: its state_dict; changed in place.
        optimizer: the optimizer that shall continue.
        where: names the checkpoint.

    Raises:
        InputError: if the class or the number of parameters differs.
    """
    present = type(optimizer).__name__
    sizes = [len(group["params"]) for group in saved["param_groups"]]
    if name != present or sizes != [len(group["params"]) for group in optimizer.param_groups]:
        raise InputError(f"{where} was trained by {name} with {sizes} parameters, which {present} cannot continue")
    for theirs, ours in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        theirs.update({k: ours[k] for k in ("betas", "fused", "foreach", "capturable", "differentiable") if k in ours})


def list_differences(saved: Mapping[str, Any], present: Mapping[str, Any], limit: int = 4) -> str:
    """``layers was 4, now 8; ...`` for the first few keys that differ; empty if none does."""
    absent = object()
    names = [n for n in saved | present if saved.get(n, absent) != present.get(n, absent)]
    parts = [f"{n} was {saved.get(n, 'absent')}, now {present.get(n, 'absent')}" for n in names[:limit]]
    if len(names) > limit:
        parts.append(f"and {len(names) - limit} more")
    return "; ".join(parts)
