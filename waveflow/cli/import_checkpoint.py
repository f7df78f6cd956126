"""``waveflow import``: checkpoints of other programs."""

import argparse
from pathlib import Path

from waveflow.audio import read_mel_config
from waveflow.errors import InputError
from waveflow.models.pretrained import CONFIG_FILE, WEIGHTS_FILE
from waveflow.models.waveglow import import_nvidia


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "import",
        help="convert the checkpoint of another program",
        description="Convert a checkpoint; no code that it may hold is executed.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    waveglow = kinds.add_parser(
        "waveglow",
        help="NVIDIA's WaveGlow, of any year",
        description="Convert a WaveGlow checkpoint of NVIDIA's (github.com/NVIDIA/waveglow, DeepLearningExamples, NGC, "
        "NeMo) into a folder that `waveflow vocode --model` takes.",
        allow_abbrev=False,
    )
    waveglow.add_argument("source", metavar="SRC", help=".pt, .pth, .nemo or .safetensors file")
    waveglow.add_argument("target", metavar="DST", help="folder to make; must not hold a checkpoint yet")
    waveglow.add_argument(
        "--mel-config",
        metavar="NAME|FILE",
        help="the mel it was trained on: a preset (tacotron2, ...), or a .json or .yaml file (default: what the file "
        "says, or else tacotron2)",
    )
    waveglow.add_argument(
        "--alternate",
        action="store_true",
        help="a bare state dict is of the oldest kind, in which odd flows transform the first half",
    )
    waveglow.set_defaults(run=run_waveglow)


def run_waveglow(options: argparse.Namespace) -> None:
    """Convert one checkpoint.

    Raises:
        InputError: if the source is no such checkpoint, or the target holds one already.
        OSError: if the target cannot be written.
    """
    target = Path(options.target)
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: expected a folder to make, got a file")
    held = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if (target / name).exists()]
    if held:
        raise InputError(f"{target} already holds a checkpoint ({', '.join(held)}): choose another folder")
    mel = None if options.mel_config is None else read_mel_config(options.mel_config)
    model = import_nvidia(options.source, mel=mel, alternate=options.alternate or None)
    model.save_pretrained(target)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{target}: a WaveGlow with {count:,} parameters, mel {model.mel_config.describe()}")
    print(f"try: waveflow vocode INPUT --model {target} --out OUT --denoise 0.1")
