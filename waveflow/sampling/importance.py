"""Importance sampling: expectations under one distribution from draws of another."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from waveflow.errors import InputError
from waveflow.sampling.density import LogDensity, evaluate
from waveflow.sampling.inverse_cdf import sample_categorical
from waveflow.sampling.proposal import Proposal, draw


class Estimate(NamedTuple):
    """A Monte-Carlo mean and its standard error, of equal shape."""

    value: Tensor
    standard_error: Tensor


@dataclass(frozen=True)
class WeightedSamples:
    r"""Draws x_i of a proposal q with weights w_i = p(x_i) / q(x_i).

    Attributes:
        x: (N, *event).
        log_weights: (N,), float64, in nats.
    """

    x: Tensor
    log_weights: Tensor

    def weights(self) -> Tensor:
        """(N,), of sum 1."""
        return self.log_weights.softmax(0)

    def effective_sample_size(self) -> float:
        r"""How many draws of p itself these are worth, between 1 and N.

        .. math::
            \frac{(\sum_i w_i)^2}{\sum_i w_i^2}

        (Kong, Liu & Wong, 1994). It sees only where q has been: a mode of p that q never visits does not lower it.
        """
        return math.exp(2 * self.log_weights.logsumexp(0) - (2 * self.log_weights).logsumexp(0))

    def log_evidence(self) -> Estimate:
        r"""log of :math:`\int p`, estimated by the mean weight; the standard error is the delta method's."""
        count, ess = len(self.x), self.effective_sample_size()
        error = torch.tensor(max(1 / ess - 1 / count, 0.0), dtype=torch.float64).sqrt()
        return Estimate(self.log_weights.logsumexp(0) - math.log(count), error.to(self.log_weights.device))

    def mean(self, function: Callable[[Tensor], Tensor] = lambda x: x) -> Estimate:
        r"""E_p[f] of a normalised target: unbiased.

        .. math::
            E_p[f] = E_q\left[f \frac{p}{q}\right] \approx \frac{1}{N} \sum_i w_i f(x_i)

        Args:
            function: f, (N, *event) -> (N, *value).
        """
        weighted = self._per_value(self.log_weights.exp(), function(self.x))
        return Estimate(weighted.mean(0), weighted.std(0) / math.sqrt(len(weighted)))

    def self_normalised_mean(self, function: Callable[[Tensor], Tensor] = lambda x: x) -> Estimate:
        r"""E_p[f] of a target known up to a constant: consistent, with a bias of order 1 / N.

        .. math::
            E_p[f] \approx \sum_i \bar w_i f(x_i), \quad \bar w_i = \frac{w_i}{\sum_j w_j}; \qquad
            \text{s.e.}^2 \approx \sum_i \bar w_i^2 (f(x_i) - \hat f)^2

        (Owen, 2013: Monte Carlo theory, methods and examples, 9.2.)

        Args:
            function: f, (N, *event) -> (N, *value).
        """
        weights, values = self.weights(), function(self.x)
        mean = self._per_value(weights, values).sum(0)
        return Estimate(mean, self._per_value(weights, values - mean).square().sum(0).sqrt())

    def resample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` points drawn among x by their weights: unweighted draws of p, nearly, (count, *event)."""
        return self.x[sample_categorical(self.weights(), (count,), generator)]

    def _per_value(self, weights: Tensor, values: Tensor) -> Tensor:
        if values.shape[:1] != weights.shape:
            raise InputError(f"the function expects to give {len(weights)} values, got {tuple(values.shape)}")
        return weights.view(-1, *[1] * (values.ndim - 1)) * values.to(weights.dtype)


@torch.no_grad()
def importance_sample(
    log_target: LogDensity, proposal: Proposal, count: int, generator: torch.Generator | None = None
) -> WeightedSamples:
    """Draw from ``proposal`` and weigh by the target.

    Args:
        log_target: log p, up to a constant if only self-normalised means are asked for.
        proposal: q, e.g. a trained flow or a ``torch.distributions`` object; positive wherever p is.
        count: N.
        generator: source of the draws.

    Raises:
        InputError: if a shape is wrong, N < 2, a log-density is NaN or +inf, or p is zero at every draw.

    Example:
        >>> from torch.distributions import Normal
        >>> draws = importance_sample(Normal(1.0, 1.0).log_prob, Normal(0.0, 2.0), 50_000,
        ...     torch.Generator().manual_seed(0))
        >>> round(draws.mean().value.item(), 1), round(draws.mean(torch.square).value.item(), 1)
        (1.0, 2.0)
    """
    if count < 2:
        raise InputError(f"importance_sample expects a count of at least 2, got {count}")
    x, log_proposal = draw(proposal, count, generator)
    log_weights = evaluate(log_target, x, "the log density of the target").double() - log_proposal.double()
    bad = (log_weights.isnan() | log_weights.isposinf()).sum().item()
    if bad:
        raise InputError(f"importance_sample expects weights that are finite, got {bad} of {count} that are NaN or inf")
    if log_weights.max() == -math.inf:
        raise InputError(f"importance_sample expects a proposal that meets the target, got {count} draws of density 0")
    return WeightedSamples(x, log_weights)
