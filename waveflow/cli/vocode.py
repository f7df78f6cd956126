"""``waveflow vocode``: audio files from mels, or from audio by way of its mel."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from waveflow.audio import (
    AUDIO_SUFFIXES,
    MEL_SUFFIXES,
    MelConfig,
    MelSpectrogram,
    mel_picture,
    read_audio,
    read_mel,
    read_mel_config,
    write_audio,
)
from waveflow.cli.loading import add_model_options, chunk_of, load_vocoder
from waveflow.errors import InputError
from waveflow.evaluation import Synthesizer
from waveflow.models import best_vocoder


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "vocode",
        help="turn mels, or the mels of audio files, into speech",
        description="Write OUT/<name of the input>.wav for each INPUT. An audio file is analysed and made anew "
        "(copy-synthesis), at the sample rate of the model.",
        epilog="An input that cannot be used is reported by name; the others are still done, and the exit code is 2.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help=f"mel ({', '.join(MEL_SUFFIXES)}) or audio (wav, flac, ...)"
    )
    parser.add_argument("--out", default="vocoded", metavar="DIR", help="folder for the results (default: vocoded)")
    parser.add_argument(
        "--mel-config",
        metavar="NAME|FILE",
        help="how bare .npy and .pt mels were made: a preset (tacotron2, hifigan-22k, ...), or a .json or .yaml file",
    )
    parser.add_argument("--pictures", action="store_true", help="also write OUT/<name>.png: mels of input and result")
    parser.add_argument(
        "--keep-partial",
        action="store_true",
        help="on Ctrl-C, write what a WaveNet has made so far to OUT/<name>.partial.wav",
    )
    add_model_options(parser, required=False)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Vocode every input.

    Raises:
        InputError: for options that cannot be used, or, after all inputs were tried, those of them that could not.
        OSError: if a result cannot be written; nothing of it is left then.
        KeyboardInterrupt: on Ctrl-C, after writing what was made so far where ``--keep-partial`` asks for it.
    """
    options.model = options.model or best_vocoder()
    targets = _targets(options.inputs, Path(options.out))
    given = None if options.mel_config is None else read_mel_config(options.mel_config)
    model = load_vocoder(options, progress=sys.stderr.isatty(), partial=options.keep_partial or None)
    if given is not None:
        model.mel_config.require_same(given, f"the model {options.model}", f"--mel-config {options.mel_config}")
    synthesize = Synthesizer(model, options.temperature, options.denoise, options.seed, chunk_of(options, model))
    spectrogram = MelSpectrogram(model.mel_config)
    Path(options.out).mkdir(parents=True, exist_ok=True)

    failed = 0
    for source, target in tqdm(targets.items(), "vocoding", unit=" files", disable=None if len(targets) > 1 else True):
        try:
            mel, samples = _read(source, model.mel_config, given, f"the model {options.model}", spectrogram)
            result = synthesize(mel)
        except (InputError, FloatingPointError) as error:
            if len(targets) == 1:
                raise
            failed += 1
            text = str(error)
            _say(f"waveflow: error: {text if source in text else f'{source}: {text}'}", sys.stderr)
            continue
        waveform = result.waveform[:samples].clamp(-1, 1)
        rate = model.mel_config.sample_rate
        if len(result.waveform) < mel.shape[1] * model.mel_config.hop_length:
            _keep(target, waveform, mel.shape[1] * model.mel_config.hop_length, rate)
            raise KeyboardInterrupt
        write_audio(target, waveform, rate)
        if options.pictures:
            again = spectrogram(waveform[None])[0] if len(waveform) >= model.mel_config.min_samples else mel
            mel_picture(target.with_suffix(".png"), [(source, mel), (str(target), again)], model.mel_config)
        seconds = len(waveform) / rate
        speed = seconds / result.seconds
        _say(f"{target}: {seconds:.2f} s of audio in {result.seconds:.2f} s, {speed:.2f} x real time")
    if failed:
        raise InputError(f"{failed} of {len(targets)} inputs could not be vocoded")


def _targets(inputs: Sequence[str], out: Path) -> dict[str, Path]:
    """Where each input goes; an input is never written over, and no two go to one place."""
    targets: dict[str, Path] = {}
    for source in inputs:
        target = out / f"{Path(source).stem}.wav"
        other = next((name for name, path in targets.items() if path == target and name != source), None)
        if other is not None:
            raise InputError(f"{other} and {source} would both become {target}: vocode them into different folders")
        if target.exists() and os.path.exists(source) and target.samefile(source):
            raise InputError(f"{source}: --out {out} would write over it, choose another folder")
        targets[source] = target
    return targets


def _read(
    source: str, config: MelConfig, given: MelConfig | None, owner: str, spectrogram: MelSpectrogram
) -> tuple[Tensor, int | None]:
    """The mel of an input, and how many samples its result shall have (None: as many as it has)."""
    suffix = Path(source).suffix.lower()
    if suffix in MEL_SUFFIXES:
        mel, made_with = read_mel(source, given, "--mel-config")
        config.require_same(made_with, owner, source)
        return mel, None
    if suffix not in AUDIO_SUFFIXES and Path(source).is_file():
        raise InputError(f"{source}: expected a mel ({', '.join(MEL_SUFFIXES)}) or audio (wav, flac, ogg, mp3, ...)")
    waveform = read_audio(source, config.sample_rate).waveform
    if len(waveform) < config.min_samples:
        raise InputError(f"{source}: too short, {len(waveform)} samples where a mel needs {config.min_samples}")
    return spectrogram(waveform[None])[0], len(waveform)


def _keep(target: Path, waveform: Tensor, whole: int, rate: int) -> None:
    """Write what there is of an interrupted synthesis, under a name that no whole one has."""
    if not len(waveform):
        return
    target = target.with_suffix(".partial.wav")
    write_audio(target, waveform, rate)
    _say(f"{target}: the first {len(waveform) / rate:.2f} of {whole / rate:.2f} s")


def _say(text: str, stream=None) -> None:
    tqdm.write(text, file=stream or sys.stdout)
