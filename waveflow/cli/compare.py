"""``waveflow compare``: several vocoders in one table, and on a page to listen to."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from waveflow.atomic import write_whole
from waveflow.audio import MelSpectrogram, mel_picture, write_audio
from waveflow.cli.loading import (
    PRECISIONS,
    add_sampling_options,
    add_synthesis_options,
    check_synthesis_options,
    chunk_of,
    load_vocoder_of,
)
from waveflow.data import Clip, SpeechItem, WholeClips, find_clips, split_clips
from waveflow.errors import InputError
from waveflow.evaluation import (
    RECORDINGS,
    Adjusted,
    Comparison,
    Contestant,
    HeardClip,
    Report,
    ceiling,
    comparison_page,
    device_name,
    evaluate,
    takes,
)
from waveflow.models import VocoderModel
from waveflow.models.wavenet_sampling import find_sampler
from waveflow.training.interrupt import InterruptWatch


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "compare",
        help="several vocoders in one table, and side by side on a page to listen to",
        description="Measure vocoders on the same clips as `waveflow evaluate` does, and write OUT/table.md, "
        "OUT/compare.json, OUT/index.html with players and mels side by side, OUT/mels.png, and the copies as "
        "OUT/<model>/<clip>.wav.",
        epilog="A model that fails is reported by name; the others are still done, and the exit code is 2. Ctrl-C and "
        "SIGTERM leave table, page and figures of the models that were measured by then; the exit code is 130.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--models",
        required=True,
        nargs="+",
        metavar="DIR",
        help="checkpoints: folders, Hugging Face hub ids, or names of those that ship with waveflow",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="LJ Speech folder, or any folder of audio files")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results; made if it is not there")
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="only the clips that recipes do not train on: the last 20 of them, the last tenth of fewer than 100",
    )
    parser.add_argument("--clips", type=int, metavar="N", help="only the first N of them")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of the table")
    add_synthesis_options(parser, several=True)
    add_sampling_options(parser, several=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure all, write all.

    Raises:
        InputError: for options, data or checkpoints that cannot be used, or, after all models were tried, those of
            them that failed.
        OSError: if a result cannot be written.
        KeyboardInterrupt: on SIGINT or SIGTERM, after writing what was measured so far.
    """
    if options.clips is not None and options.clips < 1:
        raise InputError(f"--clips expects at least 1, got {options.clips}")
    device = check_synthesis_options(options)
    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: expected a folder, got a file")
    sources = name_models(options.models)
    clips = find_clips(options.data)
    clips = (split_clips(clips)[1] if options.held_out else clips)[: options.clips]
    _require_apart(out, sources, clips)
    models = {name: load_vocoder_of(source) for name, source in sources.items()}
    _require_one_rate(models)
    asked = _ask(models, options, device)
    contestants = [_enter(name, sources[name], model, options.temperature) for name, model in models.items()]
    configs = {name: model.mel_config for name, model in models.items()}
    data = {config: WholeClips(clips, config) for config in dict.fromkeys(configs.values())}
    first = next(iter(data.values()))
    total = len(first) + sum(len(data[config]) for config in configs.values())

    with (
        InterruptWatch("stopping: what was measured so far is written ...") as watch,
        tqdm(total=total, unit=" clips", disable=None) as bar,
    ):

        def advance() -> None:
            bar.update()
            watch.heed()

        bar.set_description(RECORDINGS)
        stage = watch.abandonable(lambda: _Stage(out, first, clips, advance))
        for index, name in enumerate(sources):
            if watch.signum:
                break
            bar.set_description(name)
            _say(f"{index + 1} of {len(sources)}: {name}")
            before = bar.n
            keep = stage.folder(name, advance)
            measure = partial(_measure, models.pop(name), data[configs[name]], options, device, asked[name], keep)
            try:
                contestants[index] = replace(contestants[index], report=watch.abandonable(measure))
            except (InputError, FloatingPointError, torch.OutOfMemoryError) as error:
                reason = " ".join(str(error).split())
                _say(f"waveflow: error: {sources[name]}: {reason}")
                contestants[index] = replace(contestants[index], failure=reason)
                bar.update(before + len(data[configs[name]]) - bar.n)
        if watch.signum and not any(contestant.report or contestant.failure for contestant in contestants):
            _say(f"interrupted before a model was measured; {out} has the recordings alone")
            raise KeyboardInterrupt
        settings = {
            "device": device_name(device),
            "precision": options.precision,
            "data": options.data,
            "held_out": options.held_out,
            "skipped": [{"name": skipped.name, "reason": skipped.reason} for skipped in first.skipped],
            "speaker": options.speaker,
            "method": options.method,
            "denoise": options.denoise,
            "match": options.match,
            "seed": options.seed,
        }
        comparison = Comparison(contestants, stage.ceiling, settings)
        figures = json.dumps(comparison.to_dict(), indent=2)
        stage.finish(comparison, figures)
    print(figures if options.json else comparison.markdown())
    _say(f"written to {out}; listen by opening {out / 'index.html'}")
    if watch.signum:
        _say(f"interrupted: what is written is about {len(comparison.measured)} of {len(contestants)} models")
        raise KeyboardInterrupt
    if failed := len(contestants) - len(comparison.measured):
        raise InputError(f"{failed} of {len(contestants)} models could not be measured")


class _Stage:
    """The folder of the results: sounds and pictures along the way, then what is about all of them.

    Making it writes the recordings, and measures them: ``ceiling`` is the best that a copy can reach. ``advance`` is
    called after each of them.
    """

    def __init__(self, out: Path, data: WholeClips, clips: Sequence[Clip], advance: Callable[[], Any]):
        self.out, self.data = out, data
        texts = {clip.name: clip.text for clip in clips}
        names = [clip.name for clip in data.recordings.clips]
        self.clips = [HeardClip(name, file, texts[name]) for name, file in zip(names, _files(names), strict=True)]
        self._file = {clip.name: clip.file for clip in self.clips}
        self._spectrogram = MelSpectrogram(data.mel_config)
        self._first: dict[str, Tensor] = {}
        keep = self.folder(RECORDINGS, advance)
        for item in data:
            keep(item, item["waveform"])
        self.ceiling = ceiling(data)

    def folder(self, name: str, advance: Callable[[], Any]) -> Callable[[SpeechItem, Tensor], None]:
        """What writes the sounds of one model, and the mels that the first model's front end makes of them."""
        config = self.data.mel_config
        (self.out / name).mkdir(parents=True, exist_ok=True)

        def keep(clip: SpeechItem, waveform: Tensor) -> None:
            path = self.out / name / f"{self._file[clip['name']]}.wav"
            waveform = waveform.clamp(-1, 1)
            write_audio(path, waveform, config.sample_rate)
            advance()
            if len(waveform) < config.min_samples:
                return
            mel = self._spectrogram(waveform[None])[0]
            real = self._spectrogram(clip["waveform"][None])[0]
            mel_picture(path.with_suffix(".png"), [(f"{clip['name']}, {name}", mel)], config, scale=real)
            if clip["name"] == self.clips[0].name:
                self._first[name] = mel

        return keep

    def finish(self, comparison: Comparison, figures: str) -> None:
        """Write table, figures, page and the mels of the first clip."""
        shown = [RECORDINGS, *(contestant.name for contestant in comparison.measured)]
        page = comparison_page(comparison, self.clips)
        write_whole(self.out / "table.md", (comparison.markdown() + "\n").encode())
        write_whole(self.out / "compare.json", (figures + "\n").encode())
        write_whole(self.out / "index.html", page.encode())
        clip = self.clips[0].name
        panels = [(f"{clip}, {name}", self._first[name]) for name in shown if name in self._first]
        if panels:
            mel_picture(self.out / "mels.png", panels, self.data.mel_config)


def name_models(sources: Sequence[str]) -> dict[str, str]:
    """A name for each model and its folder: the last part of its path, more of them where two would be alike.

    Returns:
        Source by name, in the order given.

    Raises:
        InputError: for a model that is given twice.
    """
    paths = [Path(source).resolve() for source in sources]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise InputError(f"--models expects each model once, got {sources[index]} twice")
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["-".join(part.strip("/") for part in path.parts[-depth:]) for path in paths]
        if len({*names, RECORDINGS}) == len(names) + 1:
            return dict(zip(names, sources, strict=True))
    return {f"{index}-{name}": source for index, (name, source) in enumerate(zip(names, sources, strict=True), 1)}


def _files(names: Sequence[str]) -> list[str]:
    """A file name for each clip, whose own name may have folders in it."""
    files: list[str] = []
    for name in names:
        file = plain = name.replace("/", "_")
        number = 1
        while file in files:
            number += 1
            file = f"{plain}-{number}"
        files.append(file)
    return files


def _require_apart(out: Path, sources: Mapping[str, str], clips: Sequence[Clip]) -> None:
    """Refuse folders of results that hold a model or the recordings."""
    targets = {(out / name).resolve() for name in (*sources, RECORDINGS)}
    taken = [Path(source) for source in sources.values()] + [clip.path.parent for clip in clips]
    for path in taken:
        if path.resolve() in targets:
            raise InputError(f"--out {out}: results would be written into {path}, choose another folder")


def _require_one_rate(models: Mapping[str, VocoderModel]) -> None:
    rates = {name: model.mel_config.sample_rate for name, model in models.items()}
    if len(set(rates.values())) > 1:
        said = ", ".join(f"{name} {rate} Hz" for name, rate in rates.items())
        raise InputError(f"nats per sample can be compared at one sample rate only, got {said}")


def _ask(models: Mapping[str, VocoderModel], options: argparse.Namespace, device: str) -> dict[str, dict[str, Any]]:
    """What of ``--match``, ``--method`` and ``--speaker`` concerns each model.

    Raises:
        InputError: for a method or a voice that none of them has.
    """
    asked: dict[str, dict[str, Any]] = {
        name: {} if model.config.match == options.match else {"match": options.match} for name, model in models.items()
    }
    if options.method not in (None, "auto"):  # which is what a model does by itself
        choosing = [name for name, model in models.items() if takes(model, "method")]
        if not choosing:
            raise InputError(f"--method {options.method}: none of the models has a way of sampling to choose")
        find_sampler(options.method, torch.empty(0, device=device))
        for name in choosing:
            asked[name]["method"] = options.method
    if options.speaker is not None:
        voices = {name: getattr(model.config, "speakers", 0) for name, model in models.items()}
        if not any(0 <= options.speaker < count for count in voices.values()):
            said = ", ".join(f"{name} {count or 1}" for name, count in voices.items())
            raise InputError(f"--speaker {options.speaker}: none of the models has such a voice to choose, got {said}")
        for name, count in voices.items():
            if count:
                asked[name]["speaker"] = options.speaker
    return asked


def _enter(name: str, source: str, model: VocoderModel, temperature: float | None) -> Contestant:
    """A model before anything is measured."""
    kept = model.config.temperature if temperature is None else temperature
    count = sum(parameter.numel() for parameter in model.parameters())
    return Contestant(name, source, type(model).__name__, count, kept)


def _measure(
    model: VocoderModel,
    clips: WholeClips,
    options: argparse.Namespace,
    device: str,
    asked: Mapping[str, Any],
    heard: Callable[[SpeechItem, Tensor], None],
) -> Report:
    ready = model.to(device).for_inference(PRECISIONS[options.precision])
    return evaluate(
        Adjusted(ready, **asked) if asked else ready,
        clips,
        temperature=options.temperature,
        denoise=options.denoise,
        seed=options.seed,
        chunk=chunk_of(options, ready),
        heard=heard,
    )


def _say(text: str) -> None:
    """On standard error, beside the bar."""
    tqdm.write(text, file=sys.stderr)
