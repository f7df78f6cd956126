"""Mel in, waveform out, and how long that took."""

import logging
import math
import time
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from waveflow.audio.metrics import stoi
from waveflow.data import SpeechItem
from waveflow.errors import InputError
from waveflow.evaluation.vocoder import Vocoder

logger = logging.getLogger("waveflow")


class Synthesis(NamedTuple):
    """A waveform (frames * hop_length,), float32 on the CPU, and the seconds that it took to make."""

    waveform: Tensor
    seconds: float


class Synthesizer:
    """Vocodes one mel after the other, each from the same seed: what one sounds like does not depend on the others.

    Args:
        model: the vocoder, where and in the precision it shall run.
        temperature: standard deviation of the latent; None for the model's own.
        denoise: strength of the bias subtraction; 0 for none.
        seed: of the latent of every mel.
        chunk: frames that are synthesised at a time, which bounds the memory; None for all at once.

    Raises:
        InputError: for a temperature, strength or chunk out of range.
    """

    def __init__(
        self,
        model: Vocoder,
        temperature: float | None = None,
        denoise: float = 0.0,
        seed: int = 0,
        chunk: int | None = None,
    ):
        if temperature is not None and not temperature >= 0:
            raise InputError(f"expected a temperature of at least 0, got {temperature}")
        if not denoise >= 0:
            raise InputError(f"expected a denoiser strength of at least 0, got {denoise}")
        if chunk is not None and chunk < 1:
            raise InputError(f"expected chunks of at least 1 frame, got {chunk}")
        self.model, self.temperature, self.denoise, self.seed, self.chunk = model, temperature, denoise, seed, chunk
        parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self._denoiser = model.denoiser() if denoise else None

    def __call__(self, mel: Tensor) -> Synthesis:
        """Vocode one mel (n_mels, frames).

        Raises:
            InputError: for a mel that is not one of ``model.mel_config``, or too short for the denoiser.
            FloatingPointError: if the result is not finite.
        """
        generator = torch.Generator(self.device).manual_seed(self.seed)
        self._wait()
        start = time.perf_counter()
        waveform = self.model.vocode(mel[None], self.temperature, generator=generator, chunk=self.chunk)
        if self._denoiser is not None:
            waveform = self._denoiser(waveform, self.denoise)
        self._wait()
        return Synthesis(waveform[0].float().cpu(), time.perf_counter() - start)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def mean_stoi(model: Vocoder, clips: Iterable[SpeechItem], temperature: float | None = None, seed: int = 0) -> float:
    """Mean intelligibility of copies: cheap enough to follow a training run by.

    Args:
        model: the vocoder.
        clips: waveform (T,) and mel (n_mels, frames) each.
        temperature: of the synthesis; None for the model's own.
        seed: of the latents.

    Returns:
        About 0 to 1; NaN if no clip has speech enough for the measure.
    """
    synthesize = Synthesizer(model, temperature, seed=seed)
    return stoi_of(((clip, synthesize(clip["mel"]).waveform) for clip in clips), model.mel_config.sample_rate)


def stoi_of(copies: Iterable[tuple[SpeechItem, Tensor]], sample_rate: int) -> float:
    """Mean intelligibility of copies (T,) that are made already, each beside its clip; see :func:`mean_stoi`."""
    scores = []
    for clip, copy in copies:
        try:
            scores.append(stoi(clip["waveform"], copy, sample_rate))
        except InputError as error:
            logger.info("%s: %s", clip["name"], error)
    return sum(scores) / len(scores) if scores else math.nan
