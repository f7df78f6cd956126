"""Whispering: how students fail that learn by likelihood alone. The words are there, the voice is not."""

import torch
import torch.nn.functional as F
from torch import Tensor

from waveflow.errors import InputError

_WINDOW, _HOP = 0.04, 0.01  # seconds: two periods and more of any voice
_LOWEST, _HIGHEST = 70.0, 400.0  # Hz
_VOICED = 0.6  # periodicity from which on a frame is a voice
_QUIET = 0.1  # of the root mean square of a recording: frames below are pauses


def periodicity(waveform: Tensor, sample_rate: int) -> Tensor:
    r"""How much each frame is like itself one period of a voice ago.

    .. math::
        \max_\tau \frac{\sum_t x_t x_{t+\tau}}{\sqrt{\sum_t x_t^2 \sum_t x_{t+\tau}^2}},
        \qquad \tfrac{1}{400} \le \tau \le \tfrac{1}{70} \text{ s}

    over windows of 40 ms every 10 ms, of the signal below about 1 kHz, where voices are strongest (the normalised
    cross-correlation of pitch trackers: Talkin, 1995).

    Args:
        waveform: (B, T).
        sample_rate: Hz.

    Returns:
        (B, frames), to 1 for a periodic signal; noise has about 0.4. 0 in digital silence.

    Raises:
        InputError: for waveforms of another shape, or shorter than 60 ms.
    """
    window, hop = round(_WINDOW * sample_rate), round(_HOP * sample_rate)
    first, last = int(sample_rate / _HIGHEST), int(sample_rate / _LOWEST)
    least = round(0.06 * sample_rate)
    if waveform.ndim != 2 or waveform.shape[1] < least:
        raise InputError(
            f"periodicity expects waveforms (B, T) of at least {least} samples, got {tuple(waveform.shape)}"
        )
    smoothing = max(1, sample_rate // 1500)
    stride = max(1, smoothing // 4)
    low = F.avg_pool1d(waveform.double().unsqueeze(1), smoothing, stride).squeeze(1)
    window, hop, first, last = (max(1, n // stride) for n in (window, hop, first, last))
    frames = low.unfold(1, window + last, hop)
    frames = frames - frames.mean(2, keepdim=True)
    size = 2 ** (window + 2 * last).bit_length()
    head = F.pad(frames[..., :window], (0, last))
    products = torch.fft.irfft(torch.fft.rfft(frames, size) * torch.fft.rfft(head, size).conj(), size)
    energy = F.pad(frames.square().cumsum(2), (1, 0))
    lags = torch.arange(first, last + 1, device=waveform.device)
    shifted = energy[..., lags + window] - energy[..., lags]
    scale = (energy[..., window, None] * shifted).sqrt()
    return torch.where(scale > 0, products[..., lags] / scale.clamp_min(1e-30), 0.0).amax(2).clamp(0, 1).float()


@torch.no_grad()
def voice_kept(waveform: Tensor, reference: Tensor, sample_rate: int) -> float | None:
    """The share of a recording's voiced frames in which the copy is voiced too: near 1 for good ones, 0 for a whisper.

    A frame is voiced where its :func:`periodicity` is 0.6 or more, and it is no pause.

    Args:
        waveform: the copy, (B, T).
        reference: the recording, (B, T).
        sample_rate: Hz of both.

    Returns:
        None where the recording has no voice.

    Raises:
        InputError: for different shapes; as :func:`periodicity`.
    """
    if waveform.shape != reference.shape:
        raise InputError(
            f"a copy is expected to be as long as its recording, {tuple(reference.shape)}, got {tuple(waveform.shape)}"
        )
    voiced = periodicity(reference, sample_rate) >= _VOICED
    hop, window = round(_HOP * sample_rate), round(_WINDOW * sample_rate)
    count = voiced.shape[1]
    level = reference.unfold(1, window, hop)[:, :count].square().mean(2).sqrt()
    voiced = voiced[:, : level.shape[1]] & (level > _QUIET * reference.square().mean(1, keepdim=True).sqrt())
    if not voiced.any():
        return None
    kept = periodicity(waveform, sample_rate)[:, : voiced.shape[1]][voiced] >= _VOICED
    return kept.double().mean().item()
