"""``waveflow compare``: several vocoders in one table, and on a page to listen to."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from waveflow.atomic import write_whole
from waveflow.audio import MelConfig, MelSpectrogram, mel_picture, write_audio
from waveflow.cli.loading import PRECISIONS, add_synthesis_options, check_synthesis_options, chunk_of, load_vocoder_of
from waveflow.data import Clip, SpeechItem, WholeClips, find_clips, split_clips
from waveflow.errors import InputError
from waveflow.evaluation import (
    RECORDINGS,
    Comparison,
    Contestant,
    HeardClip,
    ceiling,
    comparison_page,
    device_name,
    evaluate,
)


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "compare",
        help="several vocoders in one table, and side by side on a page to listen to",
        description="Measure vocoders on the same clips as `waveflow evaluate` does, and write OUT/table.md, "
        "OUT/compare.json, OUT/index.html with players and mels side by side, OUT/mels.png, and the copies as "
        "OUT/<model>/<clip>.wav.",
        epilog="A model that fails is reported by name; the others are still done, and the exit code is 2.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--models", required=True, nargs="+", metavar="DIR", help="checkpoints: folders, or Hugging Face hub ids"
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
    add_synthesis_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure all, write all.

    Raises:
        InputError: for options, data or checkpoints that cannot be used, or, after all models were tried, those of
            them that failed.
        OSError: if a result cannot be written.
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
    contestants, configs = _enter(sources, options.temperature)
    data = {config: WholeClips(clips, config) for config in dict.fromkeys(configs.values())}
    stage = _Stage(out, next(iter(data.values())), clips)

    for index, (name, source) in enumerate(sources.items()):
        print(f"{index + 1} of {len(sources)}: {name}", file=sys.stderr, flush=True)
        try:
            model = load_vocoder_of(source, device).for_inference(PRECISIONS[options.precision])
            report = evaluate(
                model,
                data[configs[name]],
                temperature=options.temperature,
                denoise=options.denoise,
                seed=options.seed,
                chunk=chunk_of(options, model),
                progress=True,
                heard=stage.folder(name),
            )
        except (InputError, FloatingPointError, torch.OutOfMemoryError) as error:
            reason = " ".join(str(error).split())
            print(f"waveflow: error: {source}: {reason}", file=sys.stderr)
            contestants[index] = replace(contestants[index], failure=reason)
        else:
            contestants[index] = replace(contestants[index], report=report)

    settings = {
        "device": device_name(device),
        "precision": options.precision,
        "data": options.data,
        "held_out": options.held_out,
        "skipped": [{"name": skipped.name, "reason": skipped.reason} for skipped in stage.data.skipped],
        "denoise": options.denoise,
        "seed": options.seed,
    }
    comparison = Comparison(contestants, ceiling(stage.data), settings)
    figures = json.dumps(comparison.to_dict(), indent=2)
    stage.finish(comparison, figures)
    print(figures if options.json else comparison.markdown())
    print(f"written to {out}; listen by opening {out / 'index.html'}", file=sys.stderr)
    if failed := len(contestants) - len(comparison.measured):
        raise InputError(f"{failed} of {len(contestants)} models could not be measured")


class _Stage:
    """The folder of the results: sounds and pictures along the way, then what is about all of them."""

    def __init__(self, out: Path, data: WholeClips, clips: Sequence[Clip]):
        self.out, self.data = out, data
        texts = {clip.name: clip.text for clip in clips}
        names = [clip.name for clip in data.recordings.clips]
        self.clips = [HeardClip(name, file, texts[name]) for name, file in zip(names, _files(names), strict=True)]
        self._file = {clip.name: clip.file for clip in self.clips}
        self._spectrogram = MelSpectrogram(data.mel_config)
        self._first: dict[str, Tensor] = {}
        keep = self.folder(RECORDINGS)
        for item in data:
            keep(item, item["waveform"])

    def folder(self, name: str) -> Callable[[SpeechItem, Tensor], None]:
        """What writes the sounds of one model, and the mels that the first model's front end makes of them."""
        config = self.data.mel_config
        (self.out / name).mkdir(parents=True, exist_ok=True)

        def keep(clip: SpeechItem, waveform: Tensor) -> None:
            path = self.out / name / f"{self._file[clip['name']]}.wav"
            waveform = waveform.clamp(-1, 1)
            write_audio(path, waveform, config.sample_rate)
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
        panels = [(name, self._first[name]) for name in shown if name in self._first]
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


def _enter(sources: Mapping[str, str], temperature: float | None) -> tuple[list[Contestant], dict[str, MelConfig]]:
    """All models before anything is measured, and the mel configuration of each; they are loaded one at a time."""
    contestants, configs = [], {}
    for name, source in sources.items():
        model = load_vocoder_of(source)
        configs[name] = model.mel_config
        kept = model.config.temperature if temperature is None else temperature
        count = sum(parameter.numel() for parameter in model.parameters())
        contestants.append(Contestant(name, source, type(model).__name__, count, kept))
    rates = {name: config.sample_rate for name, config in configs.items()}
    if len(set(rates.values())) > 1:
        said = ", ".join(f"{name} {rate} Hz" for name, rate in rates.items())
        raise InputError(f"nats per sample can be compared at one sample rate only, got {said}")
    return contestants, configs
