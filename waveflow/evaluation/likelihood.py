"""Log-likelihood of whole clips, by one definition for all models."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from waveflow.data import LSB, SpeechItem
from waveflow.errors import InputError
from waveflow.evaluation.vocoder import Vocoder


@dataclass(frozen=True)
class Likelihood:
    """How probable a vocoder finds recordings.

    Attributes:
        nats_per_sample: log-density of all samples divided by their number.
        samples: how many there were.
        exact: whether it is the model's density itself, not a lower bound of it.
    """

    nats_per_sample: float
    samples: int
    exact: bool


def nats_per_sample(model: Vocoder, clips: Iterable[SpeechItem], seed: int = 0) -> Likelihood:
    r"""Mean log-likelihood per sample of whole clips, given their mels.

    .. math::
        \frac{\sum_i \log p(x_i + u_i \mid m_i)}{\sum_i T_i}, \qquad u_i \sim \mathcal{U}(-2^{-16}, 2^{-16})

    with x in [-1, 1] on the 16-bit grid, so u spans one step of it; the constant of the Gaussian base is included.
    WaveFlow's tables (arXiv:1912.01219) count alike. The noise of clip i follows from (seed, i), so neither device nor
    training state change it. One clip is in memory at a time.

    Args:
        model: anything with ``log_prob``; called in evaluation mode, which is put back afterwards.
        clips: waveform (T,), clean, and mel (n_mels, frames) each; for instance ``WholeClips``.
        seed: of the noise.

    Raises:
        InputError: for no clips.
        FloatingPointError: naming the clip whose likelihood is not finite.
    """
    total, samples = 0.0, 0
    for index, clip in enumerate(clips):
        total += clip_log_prob(model, clip, index, seed)
        samples += len(clip["waveform"])
    if not samples:
        raise InputError("the likelihood needs at least one clip, got none")
    return Likelihood(total / samples, samples, is_exact(model))


@torch.no_grad()
def clip_log_prob(model: Vocoder, clip: SpeechItem, index: int, seed: int = 0) -> float:
    """Nats of one whole clip with the noise of (seed, index); see :func:`nats_per_sample`."""
    like = like_of(model)
    waveform = dequantize(clip["waveform"], (seed, index)).to(like)
    training = isinstance(model, nn.Module) and model.training
    if training:
        model.eval()
    try:
        nats = float(model.log_prob(waveform[None], clip["mel"][None].to(like)))
    finally:
        if training:
            model.train()
    if not np.isfinite(nats):
        raise FloatingPointError(f"the log-likelihood of {clip['name']} is {nats}: is the model trained?")
    return nats


def dequantize(waveform: Tensor, key: tuple[int, ...]) -> Tensor:
    """Add uniform noise of one 16-bit step, in [-1/65536, 1/65536), that follows from ``key`` alone.

    Args:
        waveform: any shape, multiples of 1/32768.
        key: integers, 0 or more.
    """
    noise = np.random.default_rng(key).random(tuple(waveform.shape), dtype=np.float32) - np.float32(0.5)
    return waveform + LSB * torch.from_numpy(noise)


def is_exact(model: Vocoder) -> bool:
    """Whether ``log_prob`` is the density itself; a model for which it is a bound says ``exact = False``."""
    return bool(getattr(model, "exact", True))


def like_of(model: Vocoder) -> Tensor:
    """A tensor where the model is, of the precision that its waveforms have."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if first is None:
        return torch.empty(0)
    return torch.empty(0, dtype=torch.promote_types(first.dtype, torch.float32), device=first.device)
