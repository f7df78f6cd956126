"""Linear prediction by filters that follow from the mel: an exact whitening of speech."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.audio.mel_config import MelConfig
from waveflow.audio.mel_envelope import MelEnvelope, autocorrelation
from waveflow.bijectors.base import Bijector, log_det_dtype
from waveflow.context import Context, Ragged
from waveflow.kernels import lattice_analysis, lattice_synthesis, levinson_durbin

_LSB = 1 / 32768
_WHITE_NOISE = 1e-9


class LinearPrediction(Bijector):
    r"""Waveform to prediction residual of unit variance.

    .. math::
        z_t = \frac{1}{\sigma_t} \Big(x_t - \sum_{k=1}^{P} a_{t,k} x_{t-k}\Big), \qquad
        \log\left|\det \frac{\partial z}{\partial x}\right| = -\sum_t \log \sigma_t

    The context, a log-mel, tells all filters. Its bands become a power spectrum (:class:`~waveflow.audio.MelEnvelope`),
    the Fourier transform of that an autocorrelation, which is interpolated linearly between frames for every block
    of samples, and the Levinson-Durbin recursion makes reflection coefficients of it (Makhoul, 1975: Linear prediction:
    a tutorial review). A convex combination of autocorrelations is one: each block's filter is minimum-phase. To stay
    bounded also while filters change, the filter is a normalised lattice (:mod:`waveflow.kernels.lattice`), whose
    state at the border of two blocks are backward errors instead of past samples; inside a block both are
    the same. The first P samples are predicted by lower orders. All of it in float64, whatever the dtype of x.

    Learned are a factor of all variances and, if asked for, a small network of the mel that corrects the log envelope.
    Both start at no change.

    Args:
        mel_config: of the mels.
        order: P, at most n_fft / 2.
        block: samples of one filter; divides the hop length.
        correction: channels of the network that corrects the envelope, 0 for none.

    Shape:
        ``(B, 1, T)`` with mels (B, n_mels, frames), frames >= T / hop_length, a surplus is ignored.

    Raises:
        ValueError: for an order that the FFT does not support, or a block that does not divide the hop; on call, for a
            mel of other bands, or of fewer frames than the samples need.

    Example:
        >>> whiten = LinearPrediction(MelConfig())
        >>> mel = torch.full((1, 80, 4), -11.5)
        >>> z, log_det = whiten(torch.zeros(1, 1, 1024), mel)
        >>> z.shape, round(log_det.item() / 1024)
        (torch.Size([1, 1, 1024]), 11)
    """

    event_shape = (1, None)
    needs_context = True

    def __init__(self, mel_config: MelConfig, order: int = 32, block: int = 64, correction: int = 0):
        super().__init__()
        if not 1 <= order <= mel_config.n_fft // 2:
            raise ValueError(
                f"LinearPrediction expects an order of 1 to {mel_config.n_fft // 2}, half the FFT, got {order}"
            )
        if block < 1 or mel_config.hop_length % block:
            raise ValueError(
                f"LinearPrediction expects a block that divides the hop of {mel_config.hop_length}, got {block}"
            )
        self.mel_config, self.order, self.block = mel_config, order, block
        self.envelope = MelEnvelope(mel_config)
        self.log_gain = nn.Parameter(torch.zeros(()))
        self.correction = _Correction(mel_config, correction, self.envelope.knots) if correction else None

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        reflection, log_power = self.filters(context, x.shape[-1])
        errors = lattice_analysis(x[:, 0].double(), reflection, self.block)
        z = errors * self._each_sample((-0.5 * log_power).exp(), x.shape[-1])
        return z[:, None].to(x.dtype), self._log_det(reflection, log_power, x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        reflection, log_power = self.filters(context, z.shape[-1])
        errors = z[:, 0].double() * self._each_sample((0.5 * log_power).exp(), z.shape[-1])
        x, _ = lattice_synthesis(errors, reflection, self.block)
        return x[:, None].to(z.dtype), -self._log_det(reflection, log_power, z)

    def inverse_part(
        self, z: Tensor, context: Context, first_frame: int, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The inverse of a part of z, so that a long one can be inverted piece by piece with the same result.

        Args:
            z: (B, 1, frames of this part * hop_length).
            context: the whole mel.
            first_frame: where the part begins.
            state: as returned for the part before; None for the first.

        Returns:
            this part of x, and the state behind it.
        """
        reflection, log_power = self.filters(context, z.shape[-1], first_frame)
        errors = z[:, 0].double() * self._each_sample((0.5 * log_power).exp(), z.shape[-1])
        x, state = lattice_synthesis(errors, reflection, self.block, state)
        return x[:, None].to(z.dtype), state

    def extra_repr(self) -> str:
        return f"order={self.order}, block={self.block}"

    def filters(self, context: Context, samples: int, first_frame: int | None = None) -> tuple[Tensor, Tensor]:
        """Reflection coefficients (B, N, P) and log variance of x (B, N) of each block."""
        hop, offset = self.mel_config.hop_length, self.mel_config.hop_length // 2
        mel = self._around(context, samples, first_frame)
        with torch.autocast(mel.device.type, enabled=False):
            correction = None if self.correction is None else self.correction(mel)
            log_power = self.envelope(mel[..., 1:-1], correction) + self.log_gain.double()
            lags = autocorrelation(log_power, self.order + 1).transpose(1, 2)
            count = -(-samples // self.block)
            centres = (torch.arange(count, device=mel.device, dtype=torch.float64) + 0.5) * self.block
            # frame 0 here is the one before the first
            position = centres / hop + 1 - (0 if self.mel_config.padding == "center" else offset / hop)
            before = position.long()
            lags = torch.lerp(lags[:, before], lags[:, before + 1], (position - before)[:, None])
            r0 = lags[..., :1] * (1 + _WHITE_NOISE) + _LSB**2 / 12
            return levinson_durbin(torch.cat([r0, lags[..., 1:]], -1)), r0[..., 0].log()

    def _around(self, context: Context, samples: int, first_frame: int | None) -> Tensor:
        """The frames that tell of these samples and two more at both ends, the outermost ones held."""
        mel = context.values if isinstance(context, Ragged) else context
        c, first = self.mel_config, first_frame or 0
        needed = first - (-samples // c.hop_length)
        if mel.ndim != 3 or mel.shape[1] != c.n_mels or mel.shape[2] < needed:
            raise ValueError(
                f"LinearPrediction expects mels (B, {c.n_mels}, {needed} or more) of {c.describe()} "
                f"for {samples} samples, got {tuple(mel.shape)}"
            )
        if isinstance(context, Ragged):
            last = (context.mask > 0).sum(2) - 1
        else:
            last = torch.full((1, 1), (needed if first_frame is None else mel.shape[2]) - 1, device=mel.device)
        index = torch.minimum(torch.arange(first - 2, needed + 2, device=mel.device), last).clamp_min(0)
        return mel.gather(2, index[:, None].expand(*mel.shape[:2], -1))

    def _each_sample(self, values: Tensor, samples: int) -> Tensor:
        return values.repeat_interleave(self.block, 1)[:, :samples]

    def _log_det(self, reflection: Tensor, log_power: Tensor, x: Tensor) -> Tensor:
        begin = torch.arange(reflection.shape[1], device=x.device)[:, None] * self.block
        end = (begin + self.block).clamp_max(x.shape[-1])
        order = torch.arange(1, self.order + 1, device=x.device)
        taking_part = (end - torch.maximum(begin, order)).clamp_min(0)  # samples that order m helps to predict
        log_variance = (end - begin)[:, 0] * log_power + (taking_part * torch.log1p(-reflection.square())).sum(2)
        return (-0.5 * log_variance.sum(1)).to(log_det_dtype(x))


class _Correction(nn.Module):
    def __init__(self, config: MelConfig, channels: int, knots: int):
        super().__init__()
        self.first = nn.Conv1d(config.n_mels, channels, 3)
        self.last = nn.Conv1d(channels, knots, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, mel: Tensor) -> Tensor:
        standardised = (mel.to(self.first.weight.dtype) + 5) / 2.5
        return self.last(F.silu(self.first(standardised)))
