"""What a flow is trained to minimise: by examples, or by a density that it is to imitate."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from waveflow.distributions.bits import bits_per_dim
from waveflow.distributions.flow import Flow
from waveflow.distributions.scored_draws import score_draws
from waveflow.errors import InputError

Objective = Callable[[nn.Module, Mapping[str, Any]], dict[str, Tensor]]


def maximum_likelihood(flow: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    r"""Minus the mean log-likelihood of examples, :math:`-E_{x \sim p}[\log q(x)]`: KL(p || q) up to p's entropy.

    Fit for :meth:`waveflow.training.Trainer.fit`, which minimises ``loss``.

    Args:
        flow: a :class:`Flow`, or what wraps one: called, it gives log-densities.
        batch: ``x`` (B, \*event), and ``context`` where the flow has one.

    Returns:
        ``loss``, and ``nats``, the mean log-likelihood without gradients.
    """
    nats = flow(batch["x"], batch.get("context")).mean()
    return {"loss": -nats, "nats": nats.detach()}


def image_likelihood(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    r"""The mean of bits per dimension of images, fit for :meth:`waveflow.training.Trainer.fit`.

    Args:
        model: an :class:`~waveflow.models.ImageModel`, or what wraps one: called, it gives log-probabilities.
        batch: ``images`` uint8 (B, C, H, W), and ``label`` (B,) where the model has classes.

    Returns:
        ``loss``, and ``bits_per_dim``, the same without gradients.
    """
    images = batch["images"]
    bits = bits_per_dim(model(images, batch.get("label")), images.shape[1:].numel()).mean()
    return {"loss": bits, "bits_per_dim": bits.detach()}


def speech_likelihood(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    r"""Minus the mean log-likelihood of waveforms given their mels, in nats per sample.

    Fit for :meth:`waveflow.training.Trainer.fit`.

    Args:
        model: a :class:`~waveflow.models.VocoderModel`, or what wraps one: called, it gives log-densities.
        batch: ``waveform`` (B, T) with its dequantisation noise, ``mel`` (B, n_mels, frames).

    Returns:
        ``loss``, and ``nats_per_sample``, minus the same without gradients.
    """
    nats = model(batch["waveform"], batch["mel"]).mean() / batch["waveform"].shape[1]
    return {"loss": -nats, "nats_per_sample": nats.detach()}


def reverse_kl(target_log_prob: Callable[..., Tensor], draws: int = 256) -> Objective:
    r"""The objective that imitates a density p known up to a constant, without any example of it.

    .. math::
        \mathrm{KL}(q \| p) + c = E_{x \sim q}[\log q(x) - \log p(x)]

    (Rezende & Mohamed, 2015; arXiv:1505.05770), by reparametrised draws of the flow itself. It forgives modes of p
    that q misses. A flow that samples in one pass serves best: ``IAF``, ``PlanarFlow``, ``CouplingFlow``.

    Args:
        target_log_prob: log p of x (N, \*event), differentiable, to (N,); called with the context too, repeated to
            (N, C), where there is one.
        draws: from the flow for every step, and for every item of the context where there is one.

    Returns:
        A function of (flow, batch) that gives ``loss``. Of the batch only ``context`` is looked at, if there is one.

    Raises:
        InputError: for fewer than one draw.
    """
    if draws < 1:
        raise InputError(f"reverse_kl expects at least 1 draw, got {draws}")

    def objective(flow: Flow, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"loss": score_draws(flow, target_log_prob, batch.get("context"), draws).log_ratio.mean()}

    return objective
