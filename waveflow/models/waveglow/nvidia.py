"""Reading the WaveGlow checkpoints that NVIDIA's code wrote, in all their formats.

The formats are those of github.com/NVIDIA/waveglow (BSD-3-Clause), of NVIDIA's DeepLearningExamples and of NeMo. Only
the formats: none of their code is used, needed or executed.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveflow.audio import MelConfig
from waveflow.bijectors import InvertibleConv1x1
from waveflow.errors import InputError
from waveflow.models.waveglow.checkpoint_file import CheckpointFile, open_checkpoint, printable
from waveflow.models.waveglow.model import WaveGlow, WaveGlowConfig
from waveflow.models.waveglow.nvidia_layout import Convolution, Found, Weights, find_waveglow

_HOP = 256
_SCALARS = str | int | float | None


def import_nvidia(path: str | os.PathLike, *, mel: MelConfig | None = None, alternate: bool | None = None) -> WaveGlow:
    """Read a WaveGlow checkpoint of NVIDIA's code, without executing anything that is in it.

    Understood are whole pickled modules, alone or as ``{"model": module, ...}`` (with no code of NVIDIA's at hand),
    state dicts, alone or as ``{"state_dict": ...}`` with any prefix (``module.``, ``module.1.``), NeMo's ``.nemo``
    archives, and safetensors of the same keys; files of PyTorch's zip and legacy formats; conditioning by one layer
    (``cond_layer``) or one for each layer (``cond_layers.N``), residual and skip layers joined or apart; weight norm
    by either generation of PyTorch, or removed; float32 or half. All sizes follow from the shapes of the tensors.

    Weight norm's two parameters are kept, so that training goes on as it would have in NVIDIA's code.

    Args:
        path: the file.
        mel: what the model was trained on. None: what the file says (NeMo), else Tacotron 2's with the number of
            bands, the kernel and the stride of the upsampler.
        alternate: whether every second coupling transforms the first half of the channels. None: whether the module
            is of NVIDIA's ``glow_old``, or, in a file without modules, residual and skip layers are apart.

    Returns:
        The model, in float32, on the CPU, in evaluation mode, with a default temperature of 0.6.

    Raises:
        InputError: if the file is damaged, no WaveGlow, or one that :class:`WaveGlow` cannot represent; or if ``mel``
            does not fit it.
        OSError: if the file is not there or cannot be read.
    """
    with open_checkpoint(path) as file:
        found = find_waveglow(file.path, file.content)
        weights = Weights(file, found.tensors)
        config = _config(weights, found, mel or _nemo_mel(file), alternate)
        parts = _parts(weights, config)
        weights.require_all_used()
    try:
        model = WaveGlow(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})
    except ValueError as error:
        raise InputError(f"{os.fspath(path)}: {error}") from None
    _fill(model, parts)
    return model.eval()


def _config(weights: Weights, found: Found, mel: MelConfig | None, alternate: bool | None) -> WaveGlowConfig:
    n_mels, _, kernel = weights.shape("upsample")
    mel = _mel(weights.path, mel, n_mels, kernel, found.stride)
    flows = weights.count("WN")
    channels = [weights.shape(f"convinv.{k}.conv")[0] for k in range(flows)]
    if any(n % 2 for n in channels) or channels != sorted(channels, reverse=True):
        raise InputError(f"{weights.path}: expected flows of even, never more channels, got {channels}")
    early_every = next((k for k in range(flows) if channels[k] != channels[0]), 0)
    _, width, taps = weights.shape("WN.0.in_layers.0")
    if taps % 2 == 0:
        raise InputError(f"{weights.path}: expected dilated convolutions of an odd number of taps, got {taps}")
    if alternate is None:
        apart = "WN.0.skip_layers.0.bias" in weights
        alternate = apart if found.origin is None else "glow_old" in found.origin.split(".")
    try:
        config = WaveGlowConfig(
            flows=flows,
            group=channels[0],
            early_every=early_every,
            early_channels=channels[0] - channels[early_every],
            layers=weights.count("WN.0.in_layers"),
            channels=width,
            kernel_size=taps,
            alternate=alternate,
            mel=mel,
        )
    except InputError as error:
        raise InputError(f"{weights.path}: {error}") from None
    expected = [config.channels_of_level(k // early_every if early_every else 0) for k in range(flows)]
    if channels != expected:
        raise InputError(
            f"{weights.path}: expected the same number of channels to leave after every {early_every} flows, "
            f"got flows of {channels} channels"
        )
    return config


def _mel(path: str, mel: MelConfig | None, n_mels: int, kernel: int, stride: int | None) -> MelConfig:
    hop = stride or (mel.hop_length if mel else _HOP)
    if mel is None:
        window = min(kernel, MelConfig.win_length)
        try:
            mel = MelConfig(n_mels=n_mels, n_fft=kernel, win_length=window, hop_length=hop)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    if (mel.n_mels, mel.n_fft, mel.hop_length) != (n_mels, kernel, hop):
        raise InputError(
            f"{path}: upsamples {n_mels} bands with {kernel} taps and stride {hop}, expected the bands, n_fft and hop "
            f"of the mel {mel.describe()}"
        )
    if kernel % hop:
        raise InputError(f"{path}: expected an upsampler whose stride divides its taps, got {hop} and {kernel}")
    return mel


def _nemo_mel(file: CheckpointFile) -> MelConfig | None:
    """The mel of a .nemo file's configuration, None where it has none."""
    settings = file.settings.get("preprocessor")
    if not isinstance(settings, Mapping):
        return None
    settings = settings["params"] if isinstance(settings.get("params"), Mapping) else settings
    # Also a message about a nested value must not print it: short YAML can stand for a very long one.
    settings = {
        name: value if isinstance(value, _SCALARS) else type(value).__name__ for name, value in settings.items()
    }
    unlike = {"normalize": (None, "None"), "preemph": (None, 0), "log": (True,), "log_zero_guard_type": ("clamp",)}
    for name, choices in unlike.items():
        if name in settings and settings[name] not in choices:
            raise InputError(
                f"{file.path}: was trained on mels with {name} {printable(settings[name])}, expected {choices[0]!r} "
                "(or say by mel= what it shall be taken for)"
            )
    names = {
        "sample_rate": "sample_rate",
        "n_fft": "n_fft",
        "n_window_stride": "hop_length",
        "n_window_size": "win_length",
        "nfilt": "n_mels",
        "features": "n_mels",
        "lowfreq": "f_min",
        "highfreq": "f_max",
        "mag_power": "power",
        "log_zero_guard_value": "log_floor",
    }
    fields = {ours: settings[theirs] for theirs, ours in names.items() if settings.get(theirs) is not None}
    if "highfreq" in settings and settings["highfreq"] is None and isinstance(fields.get("sample_rate"), int):
        fields["f_max"] = fields["sample_rate"] / 2
    try:
        # YAML 1.1 reads 1e-5 as text.
        fields = {name: float(value) if isinstance(value, str) else value for name, value in fields.items()}
        return MelConfig(**fields)
    except ValueError as error:
        raise InputError(f"{file.path}: the mel in its configuration: {printable(error, 200)}") from None


@dataclass(frozen=True)
class _Parts:
    """The convolutions of a checkpoint, cut as WaveGlow has them."""

    upsample: Convolution
    mixing: list[Tensor]
    couplings: list[dict[str, Convolution]]


def _parts(weights: Weights, config: WaveGlowConfig) -> _Parts:
    n_mels, kernel = config.mel.n_mels, config.mel.n_fft
    mixing, couplings = [], []
    for k in range(config.flows):
        channels = config.channels_of_level(k // config.early_every if config.early_every else 0)
        mixing.append(weights.tensor(f"convinv.{k}.conv.weight", channels, channels, 1)[:, :, 0])
        couplings.append(_coupling(weights, f"WN.{k}", channels // 2, config))
    return _Parts(weights.convolution("upsample", n_mels, n_mels, kernel), mixing, couplings)


def _coupling(weights: Weights, name: str, half: int, config: WaveGlowConfig) -> dict[str, Convolution]:
    """The convolutions of one coupling, by the names that the conditioner has for them."""
    width, layers, taps = config.channels, config.layers, config.kernel_size
    context = config.mel.n_mels * config.group
    fused = None
    if f"{name}.cond_layer.bias" in weights:
        fused = weights.convolution(f"{name}.cond_layer", 2 * width * layers, context, 1)
    parts = {
        "input": weights.convolution(f"{name}.start", width, half, 1),
        "output": weights.convolution(f"{name}.end", 2 * half, width, 1),
    }
    for i in range(layers):
        parts[f"layers.{i}.gates"] = weights.convolution(f"{name}.in_layers.{i}", 2 * width, width, taps)
        if fused is not None:
            parts[f"layers.{i}.condition"] = fused.rows(2 * width * i, 2 * width * (i + 1))
        else:
            parts[f"layers.{i}.condition"] = weights.convolution(f"{name}.cond_layers.{i}", 2 * width, context, 1)
        last = i == layers - 1
        if f"{name}.skip_layers.{i}.bias" in weights:
            kinds = ["skip_layers"] if last else ["res_layers", "skip_layers"]
            mix = Convolution.stack([weights.convolution(f"{name}.{kind}.{i}", width, width, 1) for kind in kinds])
        else:
            mix = weights.convolution(f"{name}.res_skip_layers.{i}", width if last else 2 * width, width, 1)
        parts[f"layers.{i}.mix"] = mix
    return parts


@torch.no_grad()
def _fill(model: WaveGlow, parts: _Parts) -> None:
    _set(model.encoder.convolution, parts.upsample)
    mixing = [part for part in model.flow.bijector.modules() if isinstance(part, InvertibleConv1x1)]
    for part, matrix in zip(mixing, parts.mixing, strict=True):
        part.weight.copy_(matrix)
    for coupling, convolutions in zip(model.couplings(), parts.couplings, strict=True):
        for name, convolution in convolutions.items():
            _set(coupling.conditioner.get_submodule(name), convolution)


def _set(module: nn.Module, convolution: Convolution) -> None:
    module.bias.copy_(convolution.bias)
    if parametrize.is_parametrized(module, "weight"):
        norm, direction = convolution.normed()
        module.parametrizations.weight.original0.copy_(norm)
        module.parametrizations.weight.original1.copy_(direction)
    else:
        module.weight.copy_(convolution.plain())
