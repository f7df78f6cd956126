"""A vocoder asked in a way that not all vocoders know: as one of its speakers, by one of its samplers."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from waveflow.audio import Denoiser, MelConfig
from waveflow.errors import InputError
from waveflow.evaluation.likelihood import is_exact
from waveflow.evaluation.vocoder import Vocoder

_MEANING = {
    "method": "way of sampling to choose",
    "speaker": "speakers",
    "partial": "partial results to keep",
    "match": "matching of mels",
}


class Adjusted(nn.Module):
    """A vocoder whose ``vocode``, and ``log_prob`` where it is about the speaker, get further arguments.

    Args:
        model: the vocoder.
        speaker: number of the voice, for all mels; None where the model has no speakers.
        settings: further arguments of its ``vocode``, such as ``method``; those that are None are left out.

    Raises:
        InputError: for an argument that the model does not take.
    """

    def __init__(self, model: Vocoder, speaker: int | None = None, **settings: Any):
        super().__init__()
        self.model, self.speaker = model, speaker
        self.settings = {name: value for name, value in settings.items() if value is not None}
        for name in (*self.settings, *(() if speaker is None else ("speaker",))):
            if not takes(model, name):
                raise InputError(f"a {type(model).__name__} has no {_MEANING.get(name, name)}")

    @property
    def mel_config(self) -> MelConfig:
        """The mel that the model is conditioned on."""
        return self.model.mel_config

    @property
    def exact(self) -> bool:
        """Whether ``log_prob`` is the density itself, not a bound of it."""
        return is_exact(self.model)

    def log_prob(self, waveform: Tensor, mel: Tensor) -> Tensor:
        """Log-density, (B,) nats, as the model's."""
        return self.model.log_prob(waveform, mel, **self._voice(mel))

    def vocode(
        self,
        mel: Tensor,
        temperature: float | None = None,
        *,
        generator: torch.Generator | None = None,
        chunk: int | None = None,
    ) -> Tensor:
        """Waveforms, as the model's."""
        return self.model.vocode(
            mel, temperature, generator=generator, chunk=chunk, **self.settings, **self._voice(mel)
        )

    def denoiser(self) -> Denoiser:
        """A denoiser with the bias of the model, in the voice that was chosen."""
        return self.model.denoiser() if self.speaker is None else self.model.denoiser(self.speaker)

    def _voice(self, mel: Tensor) -> dict[str, Tensor]:
        return {} if self.speaker is None else {"speaker": torch.full((len(mel),), self.speaker, device=mel.device)}


def takes(model: Vocoder, name: str) -> bool:
    """Whether the model's ``vocode`` has an argument of that name."""
    model = model.model if isinstance(model, Adjusted) else model
    return name in inspect.signature(model.vocode).parameters
