"""The compiled sampling loop of a causal WaveNet, for tensors."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from waveflow.bijectors import Affine, MixtureOfLogistics, Standardise, Univariate
from waveflow.bijectors.base import sum_event
from waveflow.bijectors.solvers import Auto, Solution
from waveflow.bijectors.univariate import LOG_SCALE_FLOOR
from waveflow.context import Context, Ragged
from waveflow.distributions.heads import Categorical, DiscretisedMixtureOfLogistics, Head
from waveflow.errors import InputError
from waveflow.kernels import wavenet_heads as heads
from waveflow.kernels.wavenet_loop import first_state, generate, pack_weights
from waveflow.networks.wavenet_weights import CausalWeights

if TYPE_CHECKING:
    from waveflow.models.wavenet_sampling import Task

_PIECE = 256  # samples of all utterances together, after which Python may react


class WaveNetLoop:
    """Samples from a causal stack on a CPU, one after the other, several utterances at a time, in compiled code.

    What it gives is what :class:`~waveflow.networks.WaveNetStack`'s stepper and the head give for the same noise, to
    rounding. It goes on from call to call, and listens to Ctrl-C every few hundred samples.

    Args:
        weights: of the stack, float32 or float64, see ``WaveNetStack.packed``; P is the head's.
        head: ``Standardise`` (a Gaussian), ``MixtureOfLogistics``, ``DiscretisedMixtureOfLogistics`` or
            ``Categorical``.
        batch: B.
        temperature: of a discrete head; that of a continuous one is in its noise.

    Raises:
        InputError: for a head that has no compiled form; weights of another dtype, or not on a CPU.

    Example:
        >>> from waveflow.networks import WaveNetStack
        >>> stack = WaveNetStack(1, 2, channels=16, layers=3, kernel_size=2, causal=True)
        >>> loop = WaveNetLoop(stack.packed(), Standardise("exp"), batch=2)
        >>> loop(torch.ones(2, 3)).tolist()  # an untrained stack says: mean 0, standard deviation 1
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    def __init__(self, weights: CausalWeights, head: Univariate | Head, batch: int, temperature: float = 1.0):
        like = weights.gates
        if like.dtype not in (torch.float32, torch.float64) or like.device.type != "cpu":
            raise InputError(
                f"WaveNetLoop expects weights of float32 or float64 on a CPU, got {like.dtype} on {like.device.type}"
            )
        self._head = _compiled_form(head, temperature)
        if weights.post2.shape[1] != head.params:
            raise InputError(f"WaveNetLoop expects weights with {head.params} outputs, got {weights.post2.shape[1]}")
        arrays = {k: v.numpy(force=True) if isinstance(v, Tensor) else v for k, v in weights._asdict().items()}
        self._weights = pack_weights(**arrays, batch=batch)
        self._state = first_state(self._weights, batch, max(self._head.components, self._head.values))
        self._batch, self._dtype = batch, like.dtype
        self._context_channels = weights.condition.shape[0]

    def __call__(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """The next n samples.

        Args:
            noise: (B, n), what the head makes samples of: standard normal for a Gaussian, standard logistic for a
                mixture of logistics, uniform on (0, 1) for a discrete head.
            context: (B, context_channels, n) at these samples; None if the stack has none.

        Returns:
            (B, n), the weights' dtype: numbers, or whole numbers from a discrete head; NaN from where on the network's
            answer is not finite.

        Raises:
            InputError: for shapes that do not fit.
        """
        batch, channels, n = self._batch, self._context_channels, noise.shape[-1]
        if noise.shape != (batch, n):
            raise InputError(f"WaveNetLoop expects noise ({batch}, n), got {tuple(noise.shape)}")
        if channels and (context is None or context.shape != (batch, channels, n)):
            got = None if context is None else tuple(context.shape)
            raise InputError(f"WaveNetLoop expects a context ({batch}, {channels}, {n}), got {got}")
        noise = self._rows(noise.t())
        context = self._rows(context.permute(2, 0, 1)) if channels else np.zeros((n, batch, 0), noise.dtype)
        out = np.empty((n, batch), noise.dtype)
        piece = max(1, _PIECE // max(batch, 1))
        for i in range(0, n if batch else 0, piece):
            now = slice(i, i + piece)
            generate(self._weights, self._state, self._head, context[now], noise[now], out[now])
        return torch.from_numpy(out).t()

    def _rows(self, x: Tensor) -> np.ndarray:
        return x.detach().to("cpu", self._dtype).contiguous().numpy()


def _compiled_form(head: Univariate | Head, temperature: float) -> heads.Head:
    if isinstance(head, Standardise | Affine) and head.scale in heads.SCALE_MAPS:
        kind = heads.GAUSSIAN if isinstance(head, Standardise) else heads.AFFINE
        return heads.Head(kind, head.params, scale=heads.SCALE_MAPS.index(head.scale), floor=LOG_SCALE_FLOOR)
    if isinstance(head, MixtureOfLogistics):
        return heads.Head(heads.LOGISTICS, head.params, head.components, floor=LOG_SCALE_FLOOR)
    temperature = max(temperature, heads.COLDEST)
    if isinstance(head, DiscretisedMixtureOfLogistics):
        return heads.Head(
            heads.DISCRETISED_LOGISTICS, head.params, head.components, head.values, temperature=temperature
        )
    if isinstance(head, Categorical):
        return heads.Head(heads.CATEGORICAL, head.params, values=head.values, temperature=temperature)
    raise InputError(f"WaveNetLoop has no compiled form of {head}")


def sample_by_kernel(task: "Task") -> Iterator[Tensor]:
    """Sample by sample in compiled code, on a CPU."""
    loop = WaveNetLoop(task.stack.packed(), task.head, len(task.z), task.temperature)
    for start, stop in task.pieces():
        yield loop(task.z[:, start:stop], None if task.context is None else task.context(start, stop))


class CompiledSolver:
    """The inverse of an ``Autoregressive`` map of a causal stack by :class:`WaveNetLoop`, where it can be had.

    That is in float32 on a CPU; elsewhere :class:`~waveflow.bijectors.solvers.Auto` solves it.
    """

    @torch.no_grad()
    def __call__(self, conditioner: nn.Module, univariate: Univariate, z: Tensor, context: Context) -> Solution:
        if z.device.type != "cpu" or z.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return Auto()(conditioner, univariate, z, context)
        values = context.values if isinstance(context, Ragged) else context
        loop = WaveNetLoop(conditioner.packed(), univariate, len(z))
        x = loop(z[:, 0], None if values is None else values[..., : z.shape[-1]])[:, None]
        _, log_derivative = univariate.inverse(z, conditioner(x, context))
        return Solution(x, sum_event(log_derivative), 0, float("nan"))
