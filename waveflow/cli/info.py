"""``waveflow info``: what a checkpoint holds."""

import argparse
import dataclasses

from waveflow.cli.loading import load_checkpoint
from waveflow.models.pretrained import FORMAT_VERSION


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "info",
        help="say what a checkpoint holds",
        description="Print model, size, configuration and mel configuration of a checkpoint, after reading all of it.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="DIR", help="checkpoint: a folder, or a Hugging Face hub id")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print it.

    Raises:
        InputError: if there is no checkpoint, or not one that this version reads.
    """
    model = load_checkpoint(options.model)
    config = dataclasses.asdict(model.config)
    mel = config.pop("mel", None)
    lines = {
        "model": type(model).__name__,
        "preset": _preset(model) or "none of the presets",
        "format version": FORMAT_VERSION,
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "configuration": ", ".join(f"{name} {value}" for name, value in config.items()),
    }
    if mel is not None:
        lines["mel"] = model.mel_config.describe()
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name.ljust(width)}  {value}")


def _preset(model) -> str | None:
    return next((name for name, fields in model.PRESETS.items() if model.Config(**fields) == model.config), None)
