"""Trained models that come with the package: a folder each, found by name."""

import json
from pathlib import Path

from waveflow.errors import InputError

SHIPPED = Path(__file__).parents[1] / "checkpoints"
"""A folder for each, named as the model is, and a file that names the best."""

BEST = "best.txt"
"""Names the vocoder that is used where none is named."""


def shipped_models() -> list[str]:
    """Names of what is shipped, sorted; each can be given wherever a checkpoint is asked for."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json") if not path.parent.name.startswith("."))


def shipped_vocoders() -> list[str]:
    """Those of them that turn mels into waveforms."""
    configs = {name: json.loads((SHIPPED / name / "config.json").read_bytes()) for name in shipped_models()}
    return [name for name, config in configs.items() if "mel" in config.get("config", {})]


def find_shipped(name: str) -> Path | None:
    """The folder of the shipped model of that name, None where there is none."""
    return SHIPPED / name if name in shipped_models() else None


def best_vocoder() -> str:
    """The name of the vocoder to use where none is named.

    Raises:
        InputError: if this installation has none, saying what to do.
    """
    names = shipped_vocoders()
    try:
        name = (SHIPPED / BEST).read_text().strip()
    except FileNotFoundError:
        name = names[0] if names else None
    if name is None:
        raise InputError(
            "no vocoder ships with this installation of waveflow: name one by --model, a folder that "
            "recipes/ljspeech/train_waveglow.py leaves"
        )
    if name not in names:
        raise InputError(f"{SHIPPED / BEST}: names {name!r}, shipped are {', '.join(names) or 'none'}")
    return name
