"""Models as the commands use them: on a device; vocoders made fast."""

import argparse
from typing import Any

import torch

from waveflow.errors import InputError
from waveflow.evaluation import Adjusted, Vocoder, takes
from waveflow.models import PretrainedModel, VocoderModel, load_model, shipped_vocoders

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16}
_CHUNK = 2048


def add_model_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The options of every command that runs one vocoder; where it need not be named, ``model`` may be None."""
    said = "checkpoint: a folder, a Hugging Face hub id, or the name of one that ships with waveflow"
    said += "" if required else f" (default: the best of those; here: {', '.join(shipped_vocoders()) or 'none'})"
    parser.add_argument("--model", required=required, metavar="DIR", help=said)
    add_synthesis_options(parser)
    add_sampling_options(parser)


def add_sampling_options(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """What only some vocoders can be asked for; with ``several``, those of them that can."""
    others = "; the other models are not concerned" if several else ""
    parser.add_argument(
        "--method",
        metavar="NAME",
        help="how a WaveNet samples: auto, incremental, kernel, graph, jacobi or full; same sound, other speed"
        + others,
    )
    parser.add_argument("--speaker", type=int, metavar="N", help=f"voice of a model that has several, from 0{others}")


def add_synthesis_options(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Where and how vocoders run, one or several, of which none shall then do what others do not."""
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
    parser.add_argument(
        "--match",
        type=int,
        default=0 if several else None,
        metavar="N",
        help="rounds of scaling the spectrum until the result has the mel that it was made from; 3 are a good start, 0 "
        f"is none (default: {'0, for all of them' if several else 'that of the checkpoint'})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument(
        "--chunk-frames",
        type=int,
        metavar="N",
        help="synthesise so many frames at a time: same sound, bounded memory; 0 for all at once (default: 2048, "
        "for a WaveNet as few as it likes)",
    )


def check_synthesis_options(options: argparse.Namespace) -> str:
    """Refuse what no model could do; the device that ``--device`` stands for.

    Raises:
        InputError: if there is no such device, or a number is out of its range.
    """
    device = choose_device(options.device)
    if options.chunk_frames is not None and options.chunk_frames < 0:
        raise InputError(f"--chunk-frames expects 0 or more, got {options.chunk_frames}")
    check_seed(options.seed)
    for name in ("temperature", "denoise", "match"):
        value = getattr(options, name)
        if value is not None and not value >= 0:
            raise InputError(f"--{name} expects 0 or more, got {value}")
    return device


def load_vocoder(options: argparse.Namespace, progress: bool = False, **settings: Any) -> Vocoder:
    """The model of ``--model``, frozen for inference, on ``--device`` in ``--precision``.

    Args:
        options: those of :func:`add_model_options`.
        progress: show how far a synthesis is, where the model can.
        settings: further arguments of its ``vocode``; None for none.

    Raises:
        InputError: if there is no such checkpoint, it is no vocoder, there is no such device, or the model does not
            have what ``--method``, ``--speaker`` or the settings ask for.
    """
    device = check_synthesis_options(options)
    model = load_vocoder_of(options.model, device).for_inference(PRECISIONS[options.precision])
    method = None if options.method == "auto" else options.method  # which is what a model does by itself
    asked = {"speaker": options.speaker, "method": method, "match": options.match, **settings}
    if progress and takes(model, "progress"):
        asked["progress"] = True
    if all(value is None for value in asked.values()):
        return model
    try:
        return Adjusted(model, **asked)
    except InputError as error:
        raise InputError(f"{options.model}: {error}") from None


def chunk_of(options: argparse.Namespace, model: Vocoder) -> int | None:
    """Frames at a time, as ``vocode`` wants them: by ``--chunk-frames``, or as suits the model."""
    if options.chunk_frames is not None:
        return options.chunk_frames or None
    return None if takes(model, "partial") else _CHUNK


def load_vocoder_of(name: str, device: str = "cpu") -> VocoderModel:
    """The vocoder in a folder or hub repository, as it was trained.

    Raises:
        InputError: if there is none.
    """
    model = load_checkpoint(name, device)
    if not isinstance(model, Vocoder):
        raise InputError(f"{name}: holds a {type(model).__name__}, which is no vocoder")
    return model


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
