"""Log-scales that ran down to their floor: how a likelihood that grows without bound shows."""

from collections.abc import Iterable

import torch

from waveflow.data import SpeechItem
from waveflow.evaluation.likelihood import dequantize, like_of
from waveflow.evaluation.vocoder import Vocoder


@torch.no_grad()
def floor_share(model: Vocoder, clips: Iterable[SpeechItem], seed: int = 0) -> float | None:
    """The share of samples whose predicted log-scale is at its floor, where a density is as narrow as it may be.

    In silence that is what a good model does; a large share on speech means scales that run away.

    Args:
        model: asked by its ``floor_share(waveform, mel)``; models without that method have no floor.
        clips: waveform (T,), clean, and mel (n_mels, frames) each.
        seed: of the dequantisation noise.

    Returns:
        0 to 1, None for a model without a floor.
    """
    if not hasattr(model, "floor_share"):
        return None
    floored, samples = 0.0, 0
    for index, clip in enumerate(clips):
        like = like_of(model)
        waveform = dequantize(clip["waveform"], (seed, index)).to(like)
        floored += model.floor_share(waveform[None], clip["mel"][None].to(like)) * len(waveform)
        samples += len(waveform)
    return floored / samples
