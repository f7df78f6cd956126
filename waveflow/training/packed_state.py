"""The state of a training run in few small files, to be carried to where it goes on."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from waveflow.atomic import write_whole
from waveflow.errors import InputError
from waveflow.training.checkpoint import read_checkpoint, write_checkpoint
from waveflow.training.run_folder import RunFolder

_INDEX, _METRICS = "state.json", "metrics.csv"


def pack_state(run: RunFolder, folder: Path, part_bytes: int = 15_000_000, light: bool = False) -> int:
    """Write the newest checkpoint of a run and its log: ``state.json``, ``state.0``, ``state.1``, ..., ``metrics.csv``.

    Averaged weights and second moments are rounded to bfloat16, first moments are left out, which Adam makes anew in a
    few steps: 8 bytes a parameter instead of 16. What is in the folder from before is replaced.

    Args:
        run: the run's folder.
        folder: made if it is not there.
        part_bytes: of a file at most.
        light: keep the averaged weights alone, 2 bytes a parameter; training goes on from them with a new optimizer.

    Returns:
        The step of the checkpoint.

    Raises:
        InputError: if the run has no checkpoint.
        OSError: if the folder cannot be written.
    """
    _, tree = run.load()
    average = tree["ema"]["average"]
    tree["ema"]["average"] = {name: value.bfloat16() for name, value in average.items()}
    if light:
        tree["model"] = {name: value for name, value in tree["model"].items() if name not in average}
        tree["optimizer"]["state"] = {}
    for entry in tree["optimizer"]["state"].values():
        del entry["exp_avg"]
        entry["exp_avg_sq"] = entry["exp_avg_sq"].bfloat16()
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / ".state.partial"
    try:
        write_checkpoint(whole, tree)
        content = whole.read_bytes()
    finally:
        whole.unlink(missing_ok=True)
    parts = [content[i : i + part_bytes] for i in range(0, len(content), part_bytes)]
    for i, part in enumerate(parts):
        write_whole(folder / f"state.{i}", part)
    for old in folder.glob("state.*"):
        if old.suffix[1:].isdigit() and int(old.suffix[1:]) >= len(parts):
            old.unlink()
    index = {"step": tree["state"]["step"], "parts": len(parts), "sha256": hashlib.sha256(content).hexdigest()}
    if (run.logs / _METRICS).exists():
        shutil.copyfile(run.logs / _METRICS, folder / _METRICS)
    # Last, so that it never speaks of parts that are not there yet.
    write_whole(folder / _INDEX, (json.dumps(index) + "\n").encode())
    return index["step"]


def unpack_state(folder: Path, run: RunFolder) -> int:
    """Make of what :func:`pack_state` wrote a run's folder that can be resumed.

    Returns:
        The step it was packed at.

    Raises:
        InputError: if parts are missing, or not those of one state; if there is a run in ``run`` already.
        OSError: if files cannot be read or written.
    """
    if any(run.checkpoints.glob("*")):
        raise InputError(f"{run.path} already holds a run")
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        content = b"".join((folder / f"state.{i}").read_bytes() for i in range(index["parts"]))
        complete = hashlib.sha256(content).hexdigest() == index["sha256"]
    except FileNotFoundError as error:
        raise InputError(f"{folder}: holds no whole packed state, {Path(error.filename).name} is missing") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{folder / _INDEX}: not the index of a packed state") from None
    if not complete:
        raise InputError(f"{folder}: the parts are not those of one state, or damaged")
    for place in (run.checkpoints, run.logs):
        place.mkdir(parents=True, exist_ok=True)
    whole = run.checkpoints / ".packed"
    try:
        whole.write_bytes(content)
        tree = _restored(read_checkpoint(whole))
    finally:
        whole.unlink(missing_ok=True)
    if (folder / _METRICS).exists():
        shutil.copyfile(folder / _METRICS, run.logs / _METRICS)
    write_checkpoint(run.checkpoints / f"step-{index['step']:08d}.safetensors", tree)
    return index["step"]


def _restored(tree: dict[str, Any]) -> dict[str, Any]:
    average = {name: value.float() for name, value in tree["ema"]["average"].items()}
    tree["ema"]["average"] = average
    tree["model"] = {**average, **tree["model"]}
    for entry in tree["optimizer"]["state"].values():
        entry["exp_avg_sq"] = entry["exp_avg_sq"].float()
        entry["exp_avg"] = torch.zeros_like(entry["exp_avg_sq"])
    return tree
