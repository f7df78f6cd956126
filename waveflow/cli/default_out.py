"""Where a recipe writes when it is not told."""

from itertools import count
from pathlib import Path

from waveflow.errors import InputError


def default_out(name: str, resume: bool = False, root: str | Path = "runs") -> Path:
    """The first of ``runs/name``, ``runs/name-2``, ... that holds no run yet: a newcomer may start twice.

    Args:
        name: of the recipe and what it trains.
        resume: the last that does hold one, instead.
        root: the folder of all runs.

    Raises:
        InputError: if there is nothing to resume.
    """
    last = None
    for number in count(1):
        folder = Path(root) / (name if number == 1 else f"{name}-{number}")
        if not any(folder.glob("checkpoints/*")) and not (folder / "model.safetensors").exists():
            break
        last = folder
    if resume and last is None:
        raise InputError(f"nothing to resume: there is no run in {folder}; say which by --out DIR")
    return last if resume else folder
