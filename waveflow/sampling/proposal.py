"""What serves as a proposal: anything that can be drawn from and that knows its density."""

import inspect
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from waveflow.errors import InputError
from waveflow.sampling.density import evaluate


@runtime_checkable
class Proposal(Protocol):
    """A trained ``Flow``, a ``torch.distributions.Distribution``, or whatever else has these two methods.

    ``sample((n,))`` gives (n, *event), ``log_prob`` of it (n,). ``generator`` is passed to ``sample`` if it is among
    its arguments; otherwise torch's global generator is seeded for the call from the one given, and put back. A method
    ``sample_with_log_prob`` is preferred where there is one.
    """

    def sample(self, shape: tuple[int, ...]) -> Tensor: ...

    def log_prob(self, x: Tensor) -> Tensor: ...


@torch.no_grad()
def draw(proposal: Proposal, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw ``count`` points (count, *event) and their log-densities (count,).

    Raises:
        InputError: if ``proposal`` lacks a method, or gives other shapes.
    """
    if not isinstance(proposal, Proposal):
        raise InputError(f"a proposal expects methods sample and log_prob, got {type(proposal).__name__}")
    fused = getattr(proposal, "sample_with_log_prob", None)
    x = _call(fused or proposal.sample, (count,), generator)
    x, log_prob = x if fused else (x, None)
    if x.ndim == 0 or len(x) != count:
        raise InputError(f"a proposal expects to give {count} points for sample(({count},)), got {tuple(x.shape)}")
    if log_prob is None:
        log_prob = evaluate(proposal.log_prob, x, f"log_prob of the proposal {type(proposal).__name__}")
    return x, log_prob


def _call(sample, shape: tuple[int, ...], generator: torch.Generator | None):
    if "generator" in inspect.signature(sample).parameters:
        return sample(shape, generator=generator)
    if generator is None:
        return sample(shape)
    seed = torch.randint(2**62, (), generator=generator, device=generator.device).item()
    on_gpu = generator.device.type == "cuda"
    with torch.random.fork_rng(devices=[generator.device] if on_gpu else []):
        torch.manual_seed(seed)
        return sample(shape)
