"""How a WaveNet is sampled: ways that give the same samples for the same noise, piece by piece."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from waveflow.bijectors import Univariate
from waveflow.context import Context, Ragged
from waveflow.distributions import AutoregressiveDistribution, Head
from waveflow.errors import InputError
from waveflow.networks.wavenet import WaveNetStack
from waveflow.networks.wavenet_causal import FoldedCausalStack


class FrameContext:
    """The encoded context of samples, made from frames when it is asked for: memory does not grow with the length.

    Args:
        encoder: from frames to the sample rate, with a ``reach`` in frames to both sides.
        context: of frames, (B, C, frames) or ``Ragged``.
        hop_length: samples a frame.
        frames: how many are encoded at a time.
    """

    def __init__(self, encoder: nn.Module, context: Context, hop_length: int, frames: int):
        self._encoder, self._context = encoder, context
        self._hop, self._frames = hop_length, frames
        self._first, self._last, self._encoded = 0, 0, None

    def __call__(self, start: int, stop: int) -> Tensor:
        """The context of samples from ``start`` to before ``stop`` or the end, (B, channels, samples)."""
        first, last = start // self._hop, -(-stop // self._hop)
        if self._encoded is None or first < self._first or min(last, self._length) > self._last:
            self._encode(first, max(last, first + self._frames))
        offset = self._first * self._hop
        return self._encoded[..., start - offset : stop - offset]

    @property
    def _length(self) -> int:
        return (self._context.values if isinstance(self._context, Ragged) else self._context).shape[-1]

    def _encode(self, first: int, last: int) -> None:
        before, after = self._encoder.reach
        low, last = max(0, first - before), min(last, self._length)
        high = min(last + after, self._length)
        if isinstance(self._context, Ragged):
            part = self._encoder(Ragged(*(t[..., low:high] for t in self._context))).values
        else:
            part = self._encoder(self._context[..., low:high])
        self._first, self._last = first, last
        self._encoded = part[..., (first - low) * self._hop : (last - low) * self._hop]


class Task(NamedTuple):
    """What is to be sampled.

    Attributes:
        stack: the causal network.
        head: what its answers mean: a univariate map, or a distribution of whole numbers.
        temperature: of a discrete head; that of a continuous one is within z.
        context: the stack's context of samples from ``start`` to ``stop`` as ``context(start, stop)``, (B,
            context_channels, stop - start); None where it has none.
        z: noise (B, T) of the head's base; uniform on (0, 1) for a discrete head.
        block: samples of a piece.
    """

    stack: WaveNetStack | FoldedCausalStack
    head: Univariate | Head
    temperature: float
    context: Callable[[int, int], Tensor] | None
    z: Tensor
    block: int

    def as_map(self) -> tuple[nn.Module, Univariate]:
        """The conditioner and the map from noise to numbers."""
        if isinstance(self.head, Head):
            return AutoregressiveDistribution(self.stack, self.head, (1, None)).as_map(self.temperature)
        return self.stack, self.head

    def perceive(self, values: Tensor) -> Tensor:
        """What the network sees of numbers: themselves, or their places on [-1, 1] if they are whole."""
        return self.as_map()[0].scale(values) if isinstance(self.head, Head) else values

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Where pieces begin and end."""
        for start in range(0, self.z.shape[1], self.block):
            yield start, min(start + self.block, self.z.shape[1])


Sampler = Callable[[Task], Iterator[Tensor]]
"""Gives the pieces (B, samples) from first to last: numbers, or of a discrete head whole numbers as floats."""


def sample_incrementally(task: Task) -> Iterator[Tensor]:
    """Sample by sample, each with only what is new: the network's stepper in plain PyTorch."""
    conditioner, univariate = task.as_map()
    stepper = conditioner.stepper(len(task.z), task.context)
    for start, stop in task.pieces():
        values = []
        for z in task.z[:, start:stop].unbind(1):
            with torch.inference_mode():
                value, _ = univariate.inverse(z, stepper.params())
                stepper.push(value)
            values.append(value)
        yield torch.stack(values, 1).clone()


def sample_fully(task: Task) -> Iterator[Tensor]:
    """Sample by sample, each with a pass of the network over all that it depends on: slow, for comparison."""
    yield from _sample_by_passes(task, 1, 1, 0.0)


def sample_by_jacobi(task: Task) -> Iterator[Tensor]:
    """All samples of a block at once, again and again until none changes by more than rounding; block after block.

    Exact after as many rounds as there are samples in a block, and as good after fewer (Song et al., 2021;
    arXiv:2002.03629). A round is a pass over the block and what it depends on: for devices that do that in the time
    of a few samples.
    """
    yield from _sample_by_passes(task, _JACOBI_BLOCK, _JACOBI_BLOCK, 8 * torch.finfo(task.z.dtype).eps)


_JACOBI_BLOCK = 256
_LIMIT = 1e6


def _sample_by_passes(task: Task, block: int, rounds: int, tolerance: float) -> Iterator[Tensor]:
    conditioner, univariate = task.as_map()
    x = torch.zeros_like(task.z)
    for piece_start, piece_stop in task.pieces():
        for start in range(piece_start, piece_stop, block):
            stop = min(start + block, piece_stop)
            first = max(0, start - task.stack.reach)
            context = None if task.context is None else task.context(first, stop)
            for _ in range(rounds):
                params = conditioner(x[:, None, first:stop], context)[:, :, 0, start - first :]
                new, _ = univariate.inverse(task.z[:, start:stop], params)
                # Before it settles a sample may be anything, but infinite ones would leave NaN for ever.
                new = new.nan_to_num(0.0, _LIMIT, -_LIMIT).clamp(-_LIMIT, _LIMIT) if rounds > 1 else new
                change = (new - x[:, start:stop]).abs() / new.abs().clamp_min(1)
                x[:, start:stop] = new
                if not change.numel() or change.max().item() <= tolerance:
                    break
        yield x[:, piece_start:piece_stop].clone()


METHODS = ("auto", "incremental", "kernel", "graph", "jacobi", "full")
"""Ways to sample by name; ``auto`` chooses among the others."""


def find_sampler(method: str, like: Tensor) -> Sampler:
    """The sampler of that name, for a network on the device and in the dtype of ``like``.

    ``auto`` is ``graph`` on a CUDA device, ``kernel`` in float32 on a CPU, ``incremental`` elsewhere.

    Raises:
        InputError: for an unknown name, or one that cannot be had there.
    """
    device = like.device.type
    if method == "auto":
        method = "graph" if device == "cuda" else "incremental"
        method = "kernel" if device == "cpu" and like.dtype == torch.float32 else method
    if method not in METHODS:
        listed = ", ".join(f'"{name}"' for name in METHODS)
        raise InputError(f"WaveNet.vocode expects a method out of {listed}, got {method!r}")
    if method == "graph":
        if device != "cuda":
            raise InputError(f'WaveNet.vocode has method="graph" on CUDA devices only, the model is on {device}')
        from waveflow.models.wavenet_graph import sample_by_graph

        return sample_by_graph
    if method == "kernel":
        if device != "cpu":
            raise InputError(f'WaveNet.vocode has method="kernel" on CPUs only, the model is on {device}')
        from waveflow.models.wavenet_kernel import sample_by_kernel  # numba takes half a second to import

        return sample_by_kernel
    return {"incremental": sample_incrementally, "jacobi": sample_by_jacobi, "full": sample_fully}[method]
