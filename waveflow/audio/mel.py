"""Waveform to log-mel spectrogram, differentiable, and the check of mels that come from elsewhere."""

import logging
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.audio.mel_config import MelConfig
from waveflow.audio.mel_filterbank import mel_filterbank
from waveflow.audio.waveform import check_waveform
from waveflow.errors import InputError

logger = logging.getLogger("waveflow")


class MelSpectrogram(nn.Module):
    """Log-mel spectrogram of a batch of waveforms, as ``MelConfig`` defines it.

    Equal to librosa and torchaudio with the same settings: to 1e-6 in float64, to 1e-3 in float32 on speech (1e-5
    but for Apple's GPUs, which have no float64). Differentiable, and float32 or wider also under autocast. The
    filterbank follows ``.to``, but is no part of ``state_dict``.

    Args:
        config: how the mel is made.
        check_values: look at the samples and refuse what is not finite or beyond [-1, 1]. Turn off for losses on
            generated waveforms and under ``torch.compile``.

    Shape:
        ``(B, T)`` to ``(B, n_mels, config.frames(T))``.

    Raises:
        InputError: on call, for a waveform of wrong shape, dtype or values, or too short to be reflected at its ends.

    Example:
        >>> mel = MelSpectrogram(MelConfig.from_preset("tacotron2"))
        >>> mel(torch.zeros(2, 16000)).shape
        torch.Size([2, 80, 63])
    """

    filterbank: Tensor

    def __init__(self, config: MelConfig, check_values: bool = True):
        super().__init__()
        self.config = config
        self.check_values = check_values
        filterbank = torch.from_numpy(mel_filterbank(config)).float()
        self.register_buffer("filterbank", filterbank, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        c = self.config
        self._check(waveform)
        if waveform.shape[0] == 0:  # the FFT of an empty batch is an error on some backends
            return waveform.new_zeros(0, c.n_mels, c.frames(waveform.shape[1]))
        with torch.autocast(waveform.device.type, enabled=False):  # a bf16 filterbank would cost two digits
            magnitude = self._magnitude(waveform)
            bands = self.filterbank @ (magnitude if c.power == 1 else magnitude**c.power)
        floored = bands.clamp_min(c.log_floor)
        return floored.log() if c.log_base == "e" else floored.log10()

    def extra_repr(self) -> str:
        return self.config.describe()

    def _magnitude(self, waveform: Tensor) -> Tensor:
        c = self.config
        # The rounding of a float32 transform, small beside the loudest bin, is 2e-3 in the log of the softest band.
        wide = torch.float32 if waveform.device.type == "mps" else torch.float64
        window = torch.hann_window(c.win_length, dtype=wide, device=waveform.device)
        padded = F.pad(waveform[:, None], (c.pad, c.pad), mode="reflect")[:, 0].to(wide)
        spectrum = torch.stft(padded, c.n_fft, c.hop_length, c.win_length, window, center=False, return_complex=True)
        if c.magnitude_epsilon:
            power = spectrum.real.square() + spectrum.imag.square()
            return (power + c.magnitude_epsilon).sqrt().to(waveform.dtype)
        return spectrum.abs().to(waveform.dtype)  # its gradient at 0 is 0, that of the square root is not

    def _apply(self, fn, recurse=True):
        # Made anew rather than cast: double() of a float32 filterbank would keep its rounding, and bfloat16() of a
        # whole model must not reach it.
        super()._apply(fn, recurse)
        dtype = torch.promote_types(self.filterbank.dtype, torch.float32)
        self.filterbank = torch.from_numpy(mel_filterbank(self.config)).to(dtype).to(self.filterbank.device)
        return self

    def _check(self, waveform: Tensor) -> None:
        c = self.config
        if not isinstance(waveform, Tensor) or waveform.ndim != 2:
            came = tuple(waveform.shape) if isinstance(waveform, Tensor) else type(waveform).__name__
            raise InputError(f"MelSpectrogram expects waveforms (B, T), got {came}")
        if waveform.dtype != self.filterbank.dtype:
            raise InputError(
                f"MelSpectrogram in {_name(self.filterbank.dtype)} expects waveforms of that dtype, got "
                f"{_name(waveform.dtype)}: 16-bit samples become floats by / 32768, the module changes by .to(dtype)"
            )
        if waveform.shape[1] < c.min_samples:
            raise InputError(
                f"MelSpectrogram expects at least {c.min_samples} samples to reflect {c.pad} at each end, "
                f"got {waveform.shape[1]}"
            )
        if self.check_values and waveform.numel():
            check_waveform(waveform)


def check_mel(mel: Tensor, config: MelConfig, name: str = "the mel") -> None:
    """Refuse what cannot be a mel of this configuration: wrong bands, not finite, or another scale of loudness.

    Scale is judged by what is possible. Nothing lies far below the log of the floor (decibels do, and natural logs
    where log10 is due), nothing far above what a full-scale tone gives, and silence in log10 sits at log10 of the
    floor. Two nats of slack leave room for the mels that a network predicts. A log10 mel that never touches the floor
    cannot be told from natural logs of a noisy recording: then a warning is logged.

    Args:
        mel: (n_mels, frames) or (B, n_mels, frames), floating.
        config: what the reader of the mel expects.
        name: what to call it in the message, for instance its file.

    Raises:
        InputError: saying what is wrong and, where it can be guessed, what it looks like.
    """
    if not isinstance(mel, Tensor) or not mel.is_floating_point():
        came = _name(mel.dtype) if isinstance(mel, Tensor) else type(mel).__name__
        raise InputError(f"{name} has to be a tensor of floats, got {came}")
    if mel.ndim not in (2, 3):
        raise InputError(f"{name} has to be (n_mels, frames) or (B, n_mels, frames), got {tuple(mel.shape)}")
    if mel.shape[-2] != config.n_mels:
        hint = ": it is transposed" if mel.shape[-1] == config.n_mels else ""
        raise InputError(f"{name} has to have {config.n_mels} bands and then frames, got {tuple(mel.shape)}{hint}")
    if mel.shape[-1] == 0:
        raise InputError(f"{name} has no frames, its shape is {tuple(mel.shape)}")
    if mel.shape[0] == 0:
        return
    low, high = (float(x) for x in mel.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{name} has {int((~mel.isfinite()).sum())} values that are NaN or infinite")
    _check_loudness(low, high, config, name)


def _check_loudness(low: float, high: float, config: MelConfig, name: str) -> None:
    floor, ceiling, slack = config.log(config.log_floor), config.log(_loudest(config)), config.log(math.exp(2))
    due = "natural logarithms" if config.log_base == "e" else "base-10 logarithms"
    if low < floor - slack:
        guess = "natural logarithms" if config.log_base == "10" and low > -12 else "decibels"
        raise InputError(
            f"{name} goes down to {low:.4g}, but {due} of mels end at {floor:.4g} (floor {config.log_floor:g}): "
            f"it looks like {guess}"
        )
    if high > ceiling + slack:
        raise InputError(
            f"{name} goes up to {high:.4g}, but {due} of mels of a full-scale waveform stay below {ceiling:.4g}: "
            "it looks like magnitudes without a logarithm, or a waveform that was not in [-1, 1]"
        )
    if low >= 0 and high > low:
        raise InputError(f"{name} has no value below 0, as {due} do: it looks like magnitudes or a 0 to 1 scale")
    if config.log_base == "e":
        floor_10, ceiling_10 = math.log10(config.log_floor), math.log10(_loudest(config))
        if abs(low - floor_10) < 1e-4:
            raise InputError(
                f"{name} ends at {low:.4g}, which is log10 of the floor {config.log_floor:g}: it looks like base-10 "
                "logarithms where natural ones are due (multiply by 2.302585)"
            )
        if floor_10 < low < floor_10 + 1 and 0 < high < ceiling_10:
            logger.warning(
                "%s lies between %.4g and %.4g: are these base-10 logarithms? Natural ones are due", name, low, high
            )


def _loudest(config: MelConfig) -> float:
    """A bound on every band of a waveform in [-1, 1]: no bin passes the sum of the window, half of ``win_length``."""
    magnitude = math.sqrt((config.win_length / 2) ** 2 + config.magnitude_epsilon)
    return float(mel_filterbank(config).sum(1).max()) * magnitude**config.power


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
