"""What all recipes of vocoders share: data and model by the flags, figures and sounds along training, a last word."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from waveflow.audio import MelConfig, MelSpectrogram, mel_image, mel_picture, read_mel_config, write_audio
from waveflow.data import (
    Batches,
    SpeechItem,
    SpeechSegments,
    WholeClips,
    download_ljspeech,
    find_clips,
    split_clips,
)
from waveflow.errors import InputError
from waveflow.evaluation import TEMPERATURES, Synthesizer, choose_temperature, floor_share, nats_per_sample, stoi_of
from waveflow.models import VocoderModel, read_config
from waveflow.threads import use_threads
from waveflow.training.config import TrainerConfig
from waveflow.training.run_log import RunLog
from waveflow.training.speech_arguments import VocoderArguments
from waveflow.training.state import TrainingState
from waveflow.training.trainer import Trainer

logger = logging.getLogger("waveflow")

SAMPLES = Path(__file__).parents[2] / "samples" / "speech"
"""The clips that ship with waveflow, which a recipe trains on when it is not told."""

_SHARED = (
    "steps",
    "batch_size",
    "device",
    "precision",
    "seed",
    "resume",
    "validate_every",
    "save_every",
)
_FROM_THE_RUN = {
    "temperature": "is chosen at the end of the training",
    "speakers": "would need recordings that say who speaks",
}
_HEARD = 2  # held-out clips that are copied along training
_FIRST_BATCH = 16  # segments for the statistics that scales are set from
_FEW = 4  # training clips that choose the temperature
_FLOORED = 0.05  # share of log-scales at their floor from which on the run says so


class SpeechRun:
    """One run of a recipe of a vocoder. What the flags get wrong is said before anything is made.

    Args:
        args: the flags.
        model: class of the model.
        out: folder of the run.
        fields: fields of the preset to be replaced; those of ``args`` come last.
        heard_seconds: how much of a clip is synthesised, at validations and to choose the temperature; None for
            all of it. For models that make one sample after the other.
        temperatures: to choose the default of the trained model from.
        settings: fields of :class:`~waveflow.training.TrainerConfig` that are no flags, and the learning rate.

    Attributes:
        trainer: the :class:`~waveflow.training.Trainer`.
        model: what is trained.

    Raises:
        InputError: for flags that are out of range, or do not fit the clips or each other.
        OSError: if clips cannot be read.
    """

    def __init__(
        self,
        args: VocoderArguments,
        model: type[VocoderModel],
        out: str | os.PathLike,
        fields: Mapping[str, Any] | None = None,
        heard_seconds: float | None = None,
        temperatures: Sequence[float] = TEMPERATURES,
        **settings: Any,
    ):
        if args.preset not in model.PRESETS:
            raise InputError(f"--preset expects one of {', '.join(model.PRESETS)}, got {args.preset!r}")
        fields = {**model.PRESETS[args.preset], **(fields or {}), **_given(args.fields or {})}
        model.make_config(**fields)  # a wrong field is said before anything is made
        use_threads(args.threads)
        data = Path(args.data or SAMPLES)
        if not args.download:
            find_clips(data)  # and so is a wrong --data
        self.args, self._temperatures = args, temperatures
        self.trainer = Trainer(TrainerConfig(out=out, **settings, **{name: getattr(args, name) for name in _SHARED}))
        self.model = model(**fields)
        config, group = self.model.mel_config, self.model.group
        if args.segment % group:
            raise InputError(f"--segment expects a multiple of {group} for {args.preset}, got {args.segment}")

        # Random segments with the noise that makes 16-bit samples continuous, and whole clips held out.
        if args.download:
            data = self.trainer.on_first(lambda: download_ljspeech(args.data or "data"))
        train, held_out = split_clips(find_clips(data))
        self._segments = SpeechSegments(train, config, args.segment, args.seed)
        self._held_out = WholeClips(held_out[: args.validate_clips or None], config)
        frames = (
            None if heard_seconds is None else max(1, round(heard_seconds * config.sample_rate / config.hop_length))
        )
        self._frames = frames
        first = (self._held_out[i] for i in range(min(_HEARD, len(self._held_out))))
        self._heard = list(self._beginnings(first))
        self._copies: dict[str, Tensor] = {}
        if self.trainer.rank == 0:
            print(
                f"data: {data}, {len(self._segments)} clips to train on, {len(self._held_out)} held out to evaluate",
                flush=True,
            )

    def fit(
        self, objective: Callable[[nn.Module, dict[str, Any]], Mapping[str, Tensor]], initialize: bool = False
    ) -> TrainingState:
        """Train by an objective, as :meth:`waveflow.training.Trainer.fit` does, and say what came of it.

        At the end the temperature of synthesis is chosen that comes with the model: the best for a few clips that it
        was trained on.

        Args:
            objective: gives ``loss`` and ``nats_per_sample``, for instance
                :func:`~waveflow.distributions.speech_likelihood`.
            initialize: show the flow of a new run a bigger batch first, from whose statistics its ActNorms are set.

        Raises:
            what ``Trainer.fit`` raises.
        """
        state = self.trainer.fit(
            self.model,
            objective,
            Batches(self._segments, self.args.batch_size, self.args.seed),
            validate=self._validate,
            sample=self._sample,
            initialize=self._initialize if initialize else None,
            finish=self._finish,
            show=["nats_per_sample"],
        )
        if self.trainer.rank == 0:
            self._report(state)
        return state

    def _initialize(self, model: VocoderModel, batch: Mapping[str, Any]) -> None:
        # more segments than a step has, the same on every process
        first = Batches(self._segments, _FIRST_BATCH, self.args.seed).batch(0)
        device = self.trainer.device
        model.flow.initialize(first["waveform"][:, None].to(device), first["mel"].to(device))

    def _validate(self, model: VocoderModel) -> dict[str, float]:
        likelihood = nats_per_sample(model, self._held_out)
        synthesize = Synthesizer(model, seed=self.args.seed)
        self._copies = {clip["name"]: synthesize(clip["mel"]).waveform for clip in self._heard}
        copies = [(clip, self._copies[clip["name"]]) for clip in self._heard]
        figures = {
            "nats_per_sample": likelihood.nats_per_sample,
            "stoi": stoi_of(copies, model.mel_config.sample_rate),
        }
        share = floor_share(model, self._heard)
        if share is None:
            return figures
        if share > _FLOORED:
            logger.warning(
                "%s: %.0f %% of its log-scales are at their floor on held-out clips: silence, or scales that run away",
                type(model).__name__,
                100 * share,
            )
        return figures | {"floor_share": share}

    def _sample(self, model: VocoderModel, log: RunLog) -> None:
        config = model.mel_config
        for clip in self._heard:  # the copies of the validation just before
            copy = self._copies[clip["name"]].clamp(-1, 1)
            name = clip["name"].replace("/", "_")
            panels = [("real", clip["mel"]), ("generated", MelSpectrogram(config)(copy[None])[0])]
            write_audio(log.samples / f"{name}-generated.wav", copy, config.sample_rate)
            write_audio(log.samples / f"{name}-real.wav", clip["waveform"], config.sample_rate)
            mel_picture(log.samples / f"{name}.png", panels, config)
            log.audio(f"generated/{name}", copy, config.sample_rate)
            log.image(f"mels/{name}", mel_image(panels, config))

    def _finish(self, model: VocoderModel) -> None:
        clips = self._segments.recordings.clips[:: -(-len(self._segments) // _FEW)]
        few = self._beginnings(WholeClips(clips, model.mel_config, progress=False))
        chosen = choose_temperature(model, few, self._temperatures, seed=self.args.seed)
        model.config = replace(model.config, temperature=chosen)

    def _beginnings(self, clips: Iterable[SpeechItem]) -> Iterator[SpeechItem]:
        """Clips cut to what is heard of them."""
        hop, frames = self.model.mel_config.hop_length, self._frames
        for clip in clips:
            cut = (
                {} if frames is None else {"waveform": clip["waveform"][: frames * hop], "mel": clip["mel"][:, :frames]}
            )
            yield {**clip, **cut}

    def _report(self, state: TrainingState) -> None:
        out, name = self.trainer.folder.path, self._heard[0]["name"].replace("/", "_")
        before, after = state.before, state.after
        print(
            f"{len(self._held_out)} held-out clips: "
            f"{before['nats_per_sample']:.3f} -> {after['nats_per_sample']:.3f} "
            f"nats per sample, STOI {before['stoi']:.3f} -> {after['stoi']:.3f} (of 1), "
            f"temperature {read_config(out)[1]['temperature']:g}"
        )
        print(f"model: {out}   figures and sounds: tensorboard --logdir {out / 'logs'}")
        print(f"listen to {out / 'samples' / f'{name}-generated.wav'} (real: {name}-real.wav, mels: {name}.png)")


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What ``--fields`` gives, with a mel that is named or written out."""
    for name, reason in _FROM_THE_RUN.items():
        if name in fields:
            raise InputError(f"--fields expects no {name}, which {reason}")
    mel = fields.get("mel")
    if isinstance(mel, str):
        return {**fields, "mel": read_mel_config(mel)}
    return {**fields, "mel": MelConfig.from_dict(mel)} if isinstance(mel, Mapping) else dict(fields)
