"""What a mel spectrogram is, down to the last degree of freedom: MelConfig and the presets of the field."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from waveflow.errors import InputError

MelScale = Literal["slaney", "htk"]
LogBase = Literal["e", "10"]
Padding = Literal["center", "same"]

_INTEGERS = ("sample_rate", "n_fft", "hop_length", "win_length", "n_mels")
_FLOATS = ("f_min", "f_max", "power", "magnitude_epsilon", "log_floor")
_CHOICES = {"mel_scale": get_args(MelScale), "norm": ("slaney", None), "log_base": get_args(LogBase)}
_CHOICES["padding"] = get_args(Padding)


@dataclass(frozen=True)
class MelConfig:
    r"""Every choice behind a log-mel spectrogram; the defaults are those of Tacotron 2 and WaveGlow.

    .. math::
        \text{mel} = \log_b \max\left(F \left(|S|^2 + \epsilon\right)^{p / 2}, \text{floor}\right)

    with S the short-time Fourier transform under a periodic Hann window and F the filterbank.

    Args:
        sample_rate: Hz.
        n_fft: samples of a frame, even.
        hop_length: samples from one frame to the next.
        win_length: samples of the Hann window, centred in the frame; at most ``n_fft``.
        n_mels: bands.
        f_min: lower edge of the lowest band, Hz.
        f_max: upper edge of the highest band, Hz; at most half of ``sample_rate``.
        mel_scale: ``"slaney"`` (linear below 1 kHz: librosa's default) or ``"htk"`` (2595 log10(1 + f / 700)).
        norm: ``"slaney"`` (every triangle has unit area over Hz) or None (unit height).
        power: p, 1 for magnitudes, 2 for powers.
        magnitude_epsilon: epsilon, added to the squared magnitude; HiFi-GAN and BigVGAN use 1e-9.
        log_base: ``"e"`` or ``"10"``.
        log_floor: smallest value that reaches the logarithm.
        padding: ``"center"`` reflects n_fft / 2 samples at both ends, so frame i is centred on sample i * hop_length;
            ``"same"`` reflects (n_fft - hop_length) / 2, so frame i is centred on the middle of hop i (HiFi-GAN).

    Raises:
        InputError: for a value of the wrong type or out of its range, naming the field.

    Example:
        >>> MelConfig().frames(16000), MelConfig.from_preset("hifigan-22k").frames(16000)
        (63, 62)
    """

    sample_rate: int = 22050
    n_fft: int = 1024
    hop_length: int = 256
    win_length: int = 1024
    n_mels: int = 80
    f_min: float = 0.0
    f_max: float = 8000.0
    mel_scale: MelScale = "slaney"
    norm: Literal["slaney"] | None = "slaney"
    power: float = 1.0
    magnitude_epsilon: float = 0.0
    log_base: LogBase = "e"
    log_floor: float = 1e-5
    padding: Padding = "center"

    def __post_init__(self):
        for name in _INTEGERS:
            object.__setattr__(self, name, _integer(name, getattr(self, name)))
        for name in _FLOATS:
            object.__setattr__(self, name, _float(name, getattr(self, name)))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                expected = " or ".join(repr(choice) for choice in choices)
                raise InputError(f"MelConfig expects {name} to be {expected}, got {getattr(self, name)!r}")
        if self.n_fft % 2:
            raise InputError(f"MelConfig expects an even n_fft, got {self.n_fft}")
        if self.win_length > self.n_fft:
            raise InputError(f"MelConfig expects win_length <= n_fft, got {self.win_length} > {self.n_fft}")
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise InputError(
                f"MelConfig expects 0 <= f_min < f_max <= {self.sample_rate / 2:g} (half the sample rate), "
                f"got f_min {self.f_min:g}, f_max {self.f_max:g}"
            )
        if self.power <= 0 or self.log_floor <= 0 or self.magnitude_epsilon < 0:
            raise InputError(
                "MelConfig expects power > 0, log_floor > 0 and magnitude_epsilon >= 0, "
                f"got {self.power:g}, {self.log_floor:g} and {self.magnitude_epsilon:g}"
            )
        if self.padding == "same" and ((self.n_fft - self.hop_length) % 2 or self.hop_length > self.n_fft):
            raise InputError(
                "MelConfig with padding 'same' expects n_fft - hop_length to be even and not negative, "
                f"got n_fft {self.n_fft}, hop_length {self.hop_length}"
            )

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """The configuration of that name in ``MEL_PRESETS``, with single fields replaced.

        Raises:
            InputError: for an unknown name, listing those there are.
        """
        if name not in MEL_PRESETS:
            raise InputError(f"unknown mel preset {name!r}, expected one of {', '.join(MEL_PRESETS)}")
        return dataclasses.replace(MEL_PRESETS[name], **overrides)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``. Every field has to be there: a default filled in silently would be a guess.

        Raises:
            InputError: for missing, unknown or impossible fields.
        """
        if not isinstance(fields, Mapping):
            raise InputError(f"a mel configuration is a mapping of fields, got {type(fields).__name__}")
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in fields]
        unknown = [str(name) for name in fields if name not in names]
        if missing or unknown:
            complaints = [f"lacks {', '.join(missing)}"] * bool(missing)
            complaints += [f"has unknown fields {', '.join(unknown)}"] * bool(unknown)
            raise InputError(f"the mel configuration {' and '.join(complaints)}")
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and None, ready for JSON."""
        return dataclasses.asdict(self)

    @property
    def preset(self) -> str | None:
        """Name of the preset that equals this configuration, None where there is none."""
        return next((name for name, preset in MEL_PRESETS.items() if preset == self), None)

    @property
    def pad(self) -> int:
        """Samples reflected at each end of the waveform."""
        return self.n_fft // 2 if self.padding == "center" else (self.n_fft - self.hop_length) // 2

    @property
    def min_samples(self) -> int:
        """The shortest waveform that can be reflected and fills a frame."""
        return self.pad + 1 if self.padding == "center" else max(self.pad + 1, self.hop_length)

    def frames(self, samples: int) -> int:
        """Frames of the mel of a waveform: samples // hop_length, and one more with ``padding="center"``."""
        return samples // self.hop_length + (self.padding == "center")

    def samples(self, frames: int) -> int:
        """Samples a vocoder makes of a mel: frames * hop_length."""
        return frames * self.hop_length

    def log(self, value: float) -> float:
        """The logarithm of the configured base."""
        return math.log(value) if self.log_base == "e" else math.log10(value)

    def describe(self) -> str:
        """All fields in one line, headed by the preset's name where there is one."""
        return (
            f"{self.preset or 'custom'} ({self.sample_rate} Hz, n_fft {self.n_fft}, hop {self.hop_length}, "
            f"window {self.win_length}, {self.n_mels} bands {self.f_min:g}-{self.f_max:g} Hz, {self.mel_scale} scale, "
            f"{self.norm or 'no'} norm, power {self.power:g}, epsilon {self.magnitude_epsilon:g}, "
            f"log base {self.log_base}, floor {self.log_floor:g}, padding {self.padding})"
        )

    def difference(self, other: Self) -> dict[str, tuple[Any, Any]]:
        """The fields that differ, as name: (here, there)."""
        here, there = self.to_dict(), other.to_dict()
        return {name: (here[name], there[name]) for name in here if here[name] != there[name]}

    def require_same(self, other: Self, this: str = "the model", that: str = "the mel") -> None:
        """Refuse a mel made otherwise.

        Args:
            other: the configuration that has to equal this one.
            this: what this configuration belongs to, for the message.
            that: what ``other`` belongs to.

        Raises:
            InputError: printing both configurations and the fields that differ.
        """
        difference = self.difference(other)
        if difference:
            fields = ", ".join(f"{name} ({there}, not {here})" for name, (here, there) in difference.items())
            raise InputError(
                f"{that} was made with {other.describe()}, but {this} needs {self.describe()}: it differs in {fields}"
            )


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 1:
        raise InputError(f"MelConfig expects {name} to be a positive whole number, got {value!r}")
    return int(value)


def _float(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"MelConfig expects {name} to be a finite number, got {value!r}")
    return float(value)


_HIFIGAN = {"magnitude_epsilon": 1e-9, "padding": "same"}

MEL_PRESETS: Mapping[str, MelConfig] = MappingProxyType(
    {
        # Shen et al., 2018, in the form NVIDIA's Tacotron 2 and WaveGlow gave it.
        "tacotron2": MelConfig(),
        # Kong, Kim & Bae, 2020: the same bands, not centred.
        "hifigan-22k": MelConfig(**_HIFIGAN),
        # Lee et al., 2023, 24 kHz with 100 bands up to the Nyquist frequency.
        "bigvgan-24k": MelConfig(sample_rate=24000, n_mels=100, f_max=12000.0, **_HIFIGAN),
        # Siuzdak, 2024: torchaudio's defaults (HTK scale, unit height) on magnitudes.
        "vocos-24k": MelConfig(
            sample_rate=24000, n_mels=100, f_max=12000.0, mel_scale="htk", norm=None, log_floor=1e-7
        ),
    }
)
