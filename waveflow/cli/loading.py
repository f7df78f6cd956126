"""Models as the commands use them: on a device; vocoders made fast."""

import argparse

import torch

from waveflow.errors import InputError
from waveflow.evaluation import Vocoder
from waveflow.models import PretrainedModel, load_model

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16}


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that runs a vocoder."""
    parser.add_argument("--model", required=True, metavar="DIR", help="checkpoint: a folder, or a Hugging Face hub id")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument(
        "--precision", choices=tuple(PRECISIONS), default="32", help="of the networks; bf16 is faster, and close"
    )
    parser.add_argument(
        "--temperature", type=float, help="standard deviation of the latent (default: the checkpoint's own)"
    )
    parser.add_argument(
        "--denoise",
        type=float,
        default=0.0,
        metavar="STRENGTH",
        help="subtract this much of the vocoder's own tones; 0.1 is a good start (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument(
        "--chunk-frames",
        type=int,
        default=2048,
        metavar="N",
        help="synthesise so many frames at a time: same sound, bounded memory; 0 for all at once (default: 2048)",
    )


def load_vocoder(options: argparse.Namespace) -> Vocoder:
    """The model of ``--model``, frozen for inference, on ``--device`` in ``--precision``.

    Raises:
        InputError: if there is no such checkpoint, it is no vocoder, or there is no such device.
    """
    device = choose_device(options.device)
    if options.chunk_frames < 0:
        raise InputError(f"--chunk-frames expects 0 or more, got {options.chunk_frames}")
    check_seed(options.seed)
    model = load_checkpoint(options.model, device)
    if not isinstance(model, Vocoder):
        raise InputError(f"{options.model}: holds a {type(model).__name__}, which is no vocoder")
    return model.for_inference(PRECISIONS[options.precision])


def choose_device(name: str) -> str:
    """The device that auto, cpu or cuda stands for.

    Raises:
        InputError: for a GPU that is not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but PyTorch sees no CUDA device here; use auto or cpu")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def check_seed(seed: int) -> None:
    """Refuse a seed that PyTorch does not take.

    Raises:
        InputError: saying the range.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed expects a whole number from 0 to 2^63 - 1, got {seed}")


def load_checkpoint(name: str, device: str = "cpu") -> PretrainedModel:
    """The model of any kind in a folder or hub repository; errors begin with its name.

    Raises:
        InputError: if there is none, or it cannot be used.
    """
    try:
        return load_model(name, device)
    except (InputError, OSError) as error:
        message = str(error)
        raise InputError(message if name in message else f"{name}: {message}") from error
