"""Fitting a flow to a target, so that it can serve as proposal or as latent space."""

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from waveflow.distributions import Flow
from waveflow.errors import InputError
from waveflow.sampling.density import LogDensity, evaluate


def fit_by_reverse_kl(
    flow: Flow,
    log_target: LogDensity,
    steps: int = 1000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> list[float]:
    r"""Fit by what the flow draws itself; no sample of the target is needed.

    .. math::
        \mathrm{KL}(q \| p) + c = E_{x \sim q}[\log q(x) - \log p(x)]

    (Rezende & Mohamed, 2015; arXiv:1505.05770.) Reparametrised gradients, so p must be differentiable, and a flow whose
    sampling costs one pass serves best. The objective forgives modes that q misses and pulls q inside p: check by
    chains that start elsewhere, or fit to samples.

    Args:
        flow: changed in place, and left in evaluation mode.
        log_target: log p of x (N, *event), up to a constant, differentiable.
        steps: of Adam, with a learning rate that falls to zero along a half cosine and gradients of norm at most 10.
        batch_size: draws per step.
        learning_rate: at the beginning.
        generator: source of the draws.
        progress: show a bar.

    Returns:
        The objective at each step: minus the log-evidence of p, plus KL(q || p).

    Raises:
        InputError: for a count that is not positive.
        FloatingPointError: if the objective is not finite.
    """
    _check_counts(steps=steps, batch_size=batch_size)
    with torch.no_grad():
        flow.initialize(flow.sample((batch_size,), generator=generator))

    def objective() -> Tensor:
        x, log_q = flow.sample_with_log_prob((batch_size,), generator=generator)
        return (log_q - evaluate(log_target, x)).mean()

    return _minimise(flow, objective, steps, learning_rate, progress)


def fit_to_samples(
    flow: Flow,
    samples: Tensor,
    steps: int = 1000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> list[float]:
    r"""Fit by maximum likelihood of samples, e.g. of chains that went before; covers every mode that they visited.

    .. math::
        \mathrm{KL}(p \| q) + c = -E_{x \sim p}[\log q(x)]

    Args:
        flow: changed in place, and left in evaluation mode.
        samples: (N, *event).
        steps: as in :func:`fit_by_reverse_kl`.
        batch_size: samples per step, drawn with replacement.
        learning_rate: at the beginning.
        generator: source of the batches.
        progress: show a bar.

    Returns:
        The objective at each step, in nats.

    Raises:
        InputError: for a count that is not positive, or no samples.
        FloatingPointError: if the objective is not finite.
    """
    _check_counts(steps=steps, batch_size=batch_size, samples=len(samples))
    samples = samples.detach()
    flow.initialize(samples)

    def objective() -> Tensor:
        rows = torch.randint(len(samples), (batch_size,), generator=generator, device=samples.device)
        return -flow.log_prob(samples[rows]).mean()

    return _minimise(flow, objective, steps, learning_rate, progress)


def _minimise(
    flow: Flow, objective: Callable[[], Tensor], steps: int, learning_rate: float, progress: bool
) -> list[float]:
    parameters = [p for p in flow.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    flow.train()
    losses = []
    for step in tqdm(range(steps), desc="fit", disable=not progress, mininterval=1.0):
        loss = objective()
        losses.append(loss.item())
        if not abs(losses[-1]) < float("inf"):
            raise FloatingPointError(f"the objective is {losses[-1]} at step {step}; a lower learning rate may help")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        schedule.step()
    flow.eval()
    return losses


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"a fit expects {name} of at least 1, got {count}")
