"""What a model has to offer to be evaluated."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from waveflow.audio import Denoiser, MelConfig


@runtime_checkable
class Vocoder(Protocol):
    """A model of waveforms given their mels, such as :class:`~waveflow.models.WaveGlow`."""

    @property
    def mel_config(self) -> MelConfig:
        """The mel that the model is conditioned on."""

    def log_prob(self, waveform: Tensor, mel: Tensor) -> Tensor:
        """Log-density on [-1, 1], (B,) nats, of waveforms (B, T) given mels (B, n_mels, frames)."""

    def vocode(
        self,
        mel: Tensor,
        temperature: float | None = None,
        *,
        generator: torch.Generator | None = None,
        chunk: int | None = None,
    ) -> Tensor:
        """Waveforms (B, frames * hop_length) of mels (B, n_mels, frames)."""

    def denoiser(self) -> Denoiser:
        """A denoiser with the bias of this model."""
