"""What a student of sound is trained to minimise: the divergence from its teacher, and distances from the recording."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from waveflow.bijectors import LOG_SCALES, LinearPrediction, Standardise
from waveflow.distillation.per_step import (
    cross_entropy,
    gaussian_entropy,
    gaussian_kl,
    log_scale_penalty,
    logistic_entropy,
)
from waveflow.distillation.spectral import multi_resolution_stft, power_loss
from waveflow.distillation.student import Student
from waveflow.distillation.teacher import flow_of, frozen, require_one_device
from waveflow.distributions import StandardNormal
from waveflow.errors import InputError
from waveflow.models import ParallelWaveNet, WaveNet
from waveflow.models.parallel_wavenet import Moments

_LOW_BAND = 3000.0  # Hz below which Parallel WaveNet counts the power loss once more


@dataclass(frozen=True)
class TermWeights:
    """Factors of the terms of :class:`StudentObjective`; 0 switches one off, and saves its work.

    Args:
        kl: divergence from the teacher, nats per sample.
        penalty: ClariNet's lambda, for the squared distance of log-scales; for Gaussians only.
        power: squared difference of STFT amplitudes from the recording's.
        stft: multi-resolution STFT distance from the recording.
        copies: the same distance from what the teacher makes of the same noise, see
            :class:`~waveflow.distillation.TeacherCopies`.
        contrastive: of the divergence from the teacher under another item's mel, which is subtracted; 0.3 in Parallel
            WaveNet. Where they whiten, the whitening keeps each item's own mel: only the networks are contrasted.

    Raises:
        InputError: for a negative factor, or nothing but zeros.
    """

    kl: float = 1.0
    penalty: float = 4.0
    power: float = 1.0
    stft: float = 0.0
    copies: float = 0.0
    contrastive: float = 0.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value >= 0:
                raise InputError(f"the factor of {name} must be at least 0, got {value}")
        if not any((self.kl, self.power, self.stft, self.copies)):
            raise InputError("the factors of kl, power, stft and copies are all 0: there is nothing to learn from")


class VocoderDraw(NamedTuple):
    """What a student drew: waveforms (B, T), and the moments of each sample, of the residual if it is whitened."""

    waveform: Tensor
    moments: Moments


class VocoderStudent(Student):
    """A :class:`~waveflow.models.ParallelWaveNet` as the trainer wraps it: ``forward(mel)`` draws.

    Args:
        model: the student.
    """

    model: ParallelWaveNet

    def forward(
        self, mel: Tensor, samples: int, generator: torch.Generator | None = None, z: Tensor | None = None
    ) -> VocoderDraw:
        """One draw for each mel (B, n_mels, frames), of so many samples, with gradients; from noise z (B, 1, samples).

        Without z, the noise is drawn by the generator.
        """
        if z is None:
            shape = (len(mel), 1, samples)
            z = self.flow.base.sample(shape, generator=generator, dtype=mel.dtype, device=mel.device)
        moments = self.model.sample_with_moments(z, mel)
        x, whitening = moments.x, self.model.whitening
        if whitening is not None:
            x, _ = whitening.inverse(x, mel)
        return VocoderDraw(x[:, 0], moments)


class StudentObjective:
    r"""The loss of Parallel WaveNet and ClariNet, term by term.

    .. math::
        \frac{1}{T} \sum_t \mathrm{KL}\big(p_S(x_t \mid z_{<t}) \,\|\, p_T(x_t \mid x_{<t})\big)
        + \lambda (\log\sigma_S - \log\sigma_T)^2 + \text{distances of spectra}, \qquad x \sim p_S

    One parallel pass of the student and one of the teacher. The divergence of each step is in closed form where both
    are Gaussian (arXiv:1807.07281), otherwise its cross-entropy is estimated by several draws of each step
    (arXiv:1711.10433). Behind linear prediction, which both share, residuals are compared: divergences do not change
    under a bijection. Gradients pass through the teacher to x, and to none of its weights.

    Args:
        teacher: a :class:`~waveflow.models.WaveNet` with a continuous head.
        student: the model that it shall teach.
        weights: of the terms.
        floor: of both log-scales in the closed form, in waveform units; None for none. See
            :func:`~waveflow.distillation.gaussian_kl`.
        draws: of each step, where there is no closed form.

    Raises:
        InputError: for a teacher without continuous density, one that differs from the student in its mel (the sample
            rate in it), its context or its whitening; one on another device; fewer than one draw.
    """

    def __init__(
        self,
        teacher: WaveNet,
        student: ParallelWaveNet,
        weights: TermWeights | None = None,
        floor: float | None = None,
        draws: int = 16,
    ):
        require_same_world(student, teacher)
        if draws < 1:
            raise InputError(f"the objective expects at least 1 draw of each step, got {draws}")
        self.teacher, self.weights, self.floor, self.draws = teacher, weights or TermWeights(), floor, draws
        self._univariate = teacher.layers.bijector.univariate
        self._base = flow_of(teacher).base
        self._student_base = student.flow.base
        self._closed_form = student.config.base == "gaussian" and isinstance(self._univariate, Standardise)
        self._rate, self._n_fft = student.mel_config.sample_rate, student.mel_config.n_fft

    def __call__(
        self, student: nn.Module, batch: Mapping[str, Any], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Fit for :meth:`waveflow.training.Trainer.fit`.

        Args:
            student: a :class:`VocoderStudent`, or what wraps one.
            batch: ``waveform`` (B, T), ``mel`` (B, n_mels, frames); where ``copies`` are on also ``noise`` (B, 1, T)
                and ``copy`` (B, T), which the teacher made of it.
            generator: of the draws.

        Returns:
            ``loss``; ``kl`` in nats per sample, ``penalty``, ``power``, ``stft``, ``copies`` and ``contrastive`` before
            their factors, each where it is on; ``level``, the root mean square of the draws over that of the
            recordings, and ``offset``, the mean of the draws.

        Raises:
            InputError: where ``copies`` are on, for a batch that has none.
        """
        w, real, mel = self.weights, batch["waveform"], batch["mel"]
        if w.copies and not {"noise", "copy"} <= batch.keys():
            raise InputError(
                f'the factor of copies is {w.copies}, so batches are expected to have "noise" and "copy", '
                f"got {', '.join(batch)}"
            )
        drawn = student(mel, real.shape[1], generator, batch.get("noise"))
        terms = {}
        if w.kl or w.penalty or w.contrastive:
            kl, penalty = self.divergence(drawn.moments, mel, generator)
            terms["kl"] = kl.mean()
            if w.penalty and penalty is not None:
                terms["penalty"] = penalty.mean()
        if w.power:
            low = round(_LOW_BAND * self._n_fft / self._rate)
            terms["power"] = power_loss(drawn.waveform, real, self._n_fft, self._n_fft // 4, low).mean()
        if w.stft:
            terms["stft"] = multi_resolution_stft(drawn.waveform, real).mean()
        if w.copies:
            terms["copies"] = multi_resolution_stft(drawn.waveform, batch["copy"]).mean()
        loss = sum(getattr(w, name) * term for name, term in terms.items())
        if w.contrastive:
            terms["contrastive"] = self._contrastive(drawn.moments, mel, generator).mean()
            loss = loss - w.contrastive * terms["contrastive"]
        with torch.no_grad():
            level = drawn.waveform.square().mean().sqrt() / real.square().mean().sqrt().clamp_min(1e-8)
            watched = {"level": level, "offset": drawn.waveform.mean()}
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}, **watched}

    def divergence(
        self, moments: Moments, mel: Tensor, generator: torch.Generator | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """KL and ClariNet's penalty (None where it has no meaning) of each sample, (B, 1, T), in nats.

        Args:
            moments: of a draw.
            mel: of the draw.
            generator: of the draws of each step, where there is no closed form.
            seen: the mel that the teacher's network is given; None for the same. The whitening keeps ``mel``.
        """
        with frozen(self.teacher):
            params = self._answers(moments.x, mel if seen is None else seen)
        if not self._closed_form:
            return self._estimate(moments, params, generator), None
        mean, raw = params.to(moments.location.dtype).unbind(1)
        log_std = LOG_SCALES[self._univariate.scale](raw)
        unit = self._log_unit(mel, moments.x.shape[-1])
        kl = gaussian_kl(moments.location, moments.log_scale, mean, log_std, self.floor, unit)
        return kl, log_scale_penalty(moments.log_scale, log_std, 1.0)

    def _answers(self, x: Tensor, mel: Tensor) -> Tensor:
        return self.teacher.stack(x, self.teacher.encoder(mel)[..., : x.shape[-1]])

    def _estimate(self, moments: Moments, params: Tensor, generator: torch.Generator | None) -> Tensor:
        def log_density(x: Tensor) -> Tensor:
            # All draws of a step lie beside each other as an event (draws, T), for which the parameters hold alike.
            z, log_derivative = self._univariate(x.squeeze(2).transpose(0, 1), params)
            density = self._base.log_prob(z.reshape(-1, 1)).reshape(z.shape) + log_derivative
            return density.transpose(0, 1).unsqueeze(2)

        entropy = gaussian_entropy if isinstance(self._student_base, StandardNormal) else logistic_entropy
        crossed = cross_entropy(
            moments.location, moments.log_scale, log_density, self.draws, self._student_base, generator
        )
        return crossed - entropy(moments.log_scale)

    def _contrastive(self, moments: Moments, mel: Tensor, generator: torch.Generator | None) -> Tensor:
        if len(mel) < 2:
            raise InputError(f"the contrastive loss expects a batch of at least 2 mels, got {len(mel)}")
        device = "cpu" if generator is None else generator.device
        places = int(torch.randint(1, len(mel), (), generator=generator, device=device))
        return self.divergence(moments, mel, generator, mel.roll(places, 0))[0]

    def _log_unit(self, mel: Tensor, samples: int) -> Tensor | float:
        whitening = self.teacher.whitening
        if self.floor is None or whitening is None:
            return 0.0
        return log_gain(whitening, mel, samples)


@torch.no_grad()
def log_gain(whitening: LinearPrediction, mel: Tensor, samples: int) -> Tensor:
    """Log of the standard deviation, in waveform units, of the residual that the whitening makes 1: (B, 1, T)."""
    reflection, log_power = whitening.filters(mel, samples)
    each = 0.5 * (log_power + torch.log1p(-reflection.square()).sum(2))
    return each.repeat_interleave(whitening.block, 1)[:, None, :samples].to(mel.dtype)


def require_same_world(student: ParallelWaveNet, teacher: nn.Module) -> None:
    """Refuse a teacher that cannot teach this student sample by sample.

    Raises:
        InputError: naming what both have, where they differ.
    """
    if not isinstance(teacher, WaveNet) or not hasattr(teacher, "flow"):
        head = getattr(getattr(teacher, "config", None), "head", None)
        kind = type(teacher).__name__ + ("" if head is None else f' with the discrete head "{head}"')
        raise InputError(
            f"the objective expects a WaveNet with a continuous head, whose density has a gradient, got a {kind}"
        )
    require_one_device(student, teacher)
    ours, theirs = student.config, teacher.config
    if ours.mel.sample_rate != theirs.mel.sample_rate:
        raise InputError(
            "teacher and student must be of the same sample rate, but the teacher is of "
            f"{theirs.mel.sample_rate} Hz, the student of {ours.mel.sample_rate} Hz"
        )
    if ours.mel != theirs.mel:
        raise InputError(
            f"teacher and student must be conditioned on the same mel, but the teacher is on {theirs.mel.describe()}, "
            f"the student on {ours.mel.describe()}"
        )
    if theirs.speakers or teacher.encoder is None:
        got = f"of {theirs.speakers} speakers" if theirs.speakers else "that is given no mel"
        raise InputError(f"teacher and student must be given the same context, a mel, but the teacher is one {got}")
    names = ("whiten", "whiten_order", "whiten_block", "whiten_correction")
    whitenings = [tuple(getattr(c, name) for name in names[: 4 if c.whiten else 1]) for c in (theirs, ours)]
    if whitenings[0] != whitenings[1]:
        raise InputError(
            "teacher and student must whiten alike, but (whiten, order, block, correction) of the teacher is "
            f"{whitenings[0]}, of the student {whitenings[1]}"
        )
