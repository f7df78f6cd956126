"""Elementwise maps whose parameters are given: shared by coupling, autoregressive and elementwise bijectors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.bijectors.base import Bijector, log_det_dtype, sum_event
from waveflow.context import Context
from waveflow.errors import InputError


def _tanh_exp(raw: Tensor) -> Tensor:
    return 5.0 * torch.tanh(raw / 5.0)


def _gentle(raw: Tensor) -> Tensor:
    return 2.0 * torch.tanh(raw / 2.0)


def _sigmoid(raw: Tensor) -> Tensor:
    return F.logsigmoid(raw + 2.0)


def _floored_sigmoid(raw: Tensor) -> Tensor:
    return (0.1 + 0.9 * torch.sigmoid(raw + 2.0)).log()


def _exp(raw: Tensor) -> Tensor:
    return raw


def _floored(raw: Tensor) -> Tensor:
    return raw.clamp_min(LOG_SCALE_FLOOR)


LOG_SCALE_FLOOR = -9.0
"""The least log scale of ``floored``: about 4 steps of 16-bit sound."""

LOG_SCALES = {
    "tanh_exp": _tanh_exp,
    "gentle": _gentle,
    "sigmoid": _sigmoid,
    "floored_sigmoid": _floored_sigmoid,
    "exp": _exp,
    "floored": _floored,
}
"""Raw parameter -> log of a scale, by name.

``tanh_exp``: within [-5, 5], the identity near 0. ``gentle``: the same within [-2, 2], for stacks of vectors whose
inverse is to hold in float32 even where their networks have grown. ``sigmoid``: log sigmoid(raw + 2), at most 0
(Glow). ``floored_sigmoid``: log(0.1 + 0.9 sigmoid(raw + 2)), so that many inverses in a row cannot overflow. ``exp``:
the raw value itself, unbounded (the papers' WaveGlow, WaveFlow and ClariNet, and imported weights). ``floored``: the
raw value, but at least -9 (ClariNet's WaveNet: arXiv:1807.07281): below, a likelihood of sound could grow without end.
"""


class Univariate(nn.Module):
    r"""A bijection of single numbers, with ``params`` parameters for each of them.

    ``forward(x, params)`` and ``inverse(z, params)`` take x (B, *event) and params (B, P, *event), and return the value
    and the log of its derivative, both (B, *event). Arithmetic is done in float32 or wider, whatever the dtype of
    ``params``. Nothing is stored: a conditioner or a parameter supplies ``params``, with its channels ordered as
    [all of parameter 1 | all of parameter 2 | ...].
    """

    params: int
    linear: bool = False  # whether the derivative depends on the parameters alone
    constant_log_det: bool = False  # whether it depends on nothing

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raise InputError(f"{type(self).__name__} has no forward direction: it can only sample")

    def inverse(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raise InputError(f"{type(self).__name__} has no inverse: it gives densities but no samples")


def _unpack(x: Tensor, params: Tensor) -> tuple[Tensor, ...]:
    wide = log_det_dtype(x)
    return x.to(wide), *(p.to(wide) for p in params.unbind(1))


class Shift(Univariate):
    """z = x + shift (NICE: Dinh et al., 2014; arXiv:1410.8516). Parameters: [shift]."""

    params = 1
    linear = True
    constant_log_det = True

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        wide, shift = _unpack(x, params)
        return (wide + shift).to(x.dtype), torch.zeros_like(wide)

    def inverse(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        wide, shift = _unpack(z, params)
        return (wide - shift).to(z.dtype), torch.zeros_like(wide)


class _Scaled(Univariate):
    params = 2
    linear = True

    def __init__(self, scale: str = "tanh_exp"):
        super().__init__()
        if scale not in LOG_SCALES:
            raise ValueError(f"{type(self).__name__} expects a scale map out of {sorted(LOG_SCALES)}, got {scale!r}")
        self.scale = scale

    def extra_repr(self) -> str:
        return f"scale={self.scale!r}"


class Affine(_Scaled):
    r"""z = x * scale + shift, log derivative log scale. Parameters: [shift | raw scale].

    Args:
        scale: name of the map from the raw parameter to log scale, see ``LOG_SCALES``.

    Raises:
        ValueError: for an unknown name.

    Example:
        >>> z, log_derivative = Affine("exp")(torch.tensor([[3.0]]), torch.tensor([[[1.0], [0.0]]]))
        >>> z.item(), log_derivative.item()
        (4.0, 0.0)
    """

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        wide, shift, raw = _unpack(x, params)
        log_scale = LOG_SCALES[self.scale](raw)
        return (wide * log_scale.exp() + shift).to(x.dtype), log_scale

    def inverse(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        wide, shift, raw = _unpack(z, params)
        log_scale = LOG_SCALES[self.scale](raw)
        return ((wide - shift) * (-log_scale).exp()).to(z.dtype), -log_scale


class Standardise(_Scaled):
    r"""z = (x - mean) / std, log derivative -log std. Parameters: [mean | raw log-std].

    With a standard normal base it says that x is Gaussian with that mean and standard deviation (MAF:
    Papamakarios et al., 2017; arXiv:1705.07057).

    Args:
        scale: name of the map from the raw parameter to log std, see ``LOG_SCALES``.

    Raises:
        ValueError: for an unknown name.
    """

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        wide, mean, raw = _unpack(x, params)
        log_std = LOG_SCALES[self.scale](raw)
        return ((wide - mean) * (-log_std).exp()).to(x.dtype), -log_std

    def inverse(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        wide, mean, raw = _unpack(z, params)
        log_std = LOG_SCALES[self.scale](raw)
        return (wide * log_std.exp() + mean).to(z.dtype), log_std


class Elementwise(Bijector):
    """A univariate map with learned parameters of its own, the same for every item of the batch.

    Args:
        univariate: the map.
        event_shape: (C, ...); entries of 1 are shared along that axis, so (C, 1, 1) is a map per channel.

    Shape:
        ``(B, *event)``, each axis of event as in ``event_shape`` or, where that is 1, of any length.
    """

    def __init__(self, univariate: Univariate, event_shape: tuple[int, ...]):
        super().__init__()
        self.univariate = univariate
        self.event_shape = tuple(None if n == 1 else n for n in event_shape)
        self.raw = nn.Parameter(torch.zeros(univariate.params, *event_shape))
        self.constant_log_det = univariate.linear

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        z, log_derivative = self.univariate(x, self._params(x))
        return z, sum_event(log_derivative)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        x, log_derivative = self.univariate.inverse(z, self._params(z))
        return x, sum_event(log_derivative)

    def _params(self, x: Tensor) -> Tensor:
        return self.raw.expand(x.shape[0], -1, *x.shape[1:])
