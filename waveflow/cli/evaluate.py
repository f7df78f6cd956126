"""``waveflow evaluate``: a vocoder in figures."""

import argparse
import json
import logging
from pathlib import Path

from waveflow.atomic import write_whole
from waveflow.cli.loading import add_model_options, chunk_of, load_vocoder
from waveflow.data import WholeClips, find_clips, split_clips
from waveflow.errors import InputError
from waveflow.evaluation import evaluate

logger = logging.getLogger("waveflow")


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "evaluate",
        help="measure likelihood, copy-synthesis and speed on recordings",
        description="Print a table, a line for each clip, and the means as JSON: nats per sample (higher is better; "
        "one uniform 16-bit step of dequantisation noise, whole clips; below them those of classical models without "
        "training: white noise and linear prediction), and how the copy compares with the original: "
        "STOI and wide-band PESQ (higher is better), multi-resolution STFT distance, mel-cepstral distortion in dB "
        "and F0 RMSE in Hz (lower is better), F1 of voiced frames (higher), seconds of work per second of audio.",
        allow_abbrev=False,
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="LJ Speech folder, or any folder of audio files")
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="only the clips that recipes do not train on: the last 20 of them, the last tenth of fewer than 100",
    )
    parser.add_argument("--clips", type=int, metavar="N", help="only the first N of them")
    parser.add_argument("--json", metavar="FILE", help="write means, settings and the figures of every clip there")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure, print, write.

    Raises:
        InputError: for options, data or a checkpoint that cannot be used.
        OSError: if the JSON file cannot be written.
    """
    if options.clips is not None and options.clips < 1:
        raise InputError(f"--clips expects at least 1, got {options.clips}")
    target = None if options.json is None else _json_target(options.json)
    clips = find_clips(options.data)
    clips = split_clips(clips)[1] if options.held_out else clips
    model = load_vocoder(options)
    whole = WholeClips(clips[: options.clips], model.mel_config)
    report = evaluate(
        model,
        whole,
        temperature=options.temperature,
        denoise=options.denoise,
        seed=options.seed,
        chunk=chunk_of(options, model),
        progress=True,
    )
    figures = report.to_dict()
    print(report.table())
    print(f"likelihood: {'exact' if report.exact else 'a lower bound'}, with one 16-bit step of uniform noise")
    print(f"\n{report.yardstick_table()}\n")
    print(json.dumps({name: value for name, value in figures.items() if name != "per_clip"}, indent=2))
    if target is not None:
        figures |= {
            "model": options.model,
            "data": options.data,
            "held_out": options.held_out,
            "skipped": [{"name": skipped.name, "reason": skipped.reason} for skipped in whole.skipped],
            "speaker": options.speaker,
            "method": options.method,
            "temperature": options.temperature,
            "denoise": options.denoise,
            "match": options.match,
            "seed": options.seed,
            "precision": options.precision,
        }
        write_whole(target, (json.dumps(figures, indent=2) + "\n").encode())
        print(f"written to {options.json}")


def _json_target(name: str) -> Path:
    """Where to write, found out before minutes of measuring; links are followed, so that none is replaced."""
    path = Path(name).resolve()
    if not path.parent.is_dir():
        raise InputError(f"--json {name}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        raise InputError(f"--json {name}: expected a file to write, got a {'folder' if path.is_dir() else 'device'}")
    return path
