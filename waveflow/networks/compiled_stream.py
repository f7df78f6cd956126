"""A causal WaveNet stack run block by block in compiled code: all of a layer while a tile stays in a core's caches."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from waveflow.kernels.wavenet_layers import TILE, Conditions, LayerWeights, Workplace, pack_layers, run, workplace
from waveflow.networks.upsample import Knots
from waveflow.networks.wavenet_stream import check_block
from waveflow.networks.wavenet_weights import CausalWeights


class CompiledStream:
    """What :class:`~waveflow.networks.WaveNetStream` computes, to rounding, on a CPU in float32.

    It shares the tiles of a layer among as many threads as PyTorch computes with.

    Args:
        weights: of the stack.
        layers: the same, packed by :func:`pack_stack`.
        batch: B.
    """

    compiled = True

    def __init__(self, weights: CausalWeights, layers: LayerWeights, batch: int):
        self._weights, self._layers = weights, layers
        self._channels, self._front = layers.mix_bias.shape[1], int(np.diff(layers.past).max())
        self._past = np.zeros((batch, layers.past[-1], self._channels), np.float32)
        self._heard = weights.first.new_zeros(batch, len(weights.first))
        self._rows = np.zeros((2, batch, self._front, self._channels), np.float32)
        self._threads = torch.get_num_threads()
        self._work = [workplace(self._channels) for _ in range(self._threads)]

    @torch.no_grad()
    def push(self, x: Tensor, context: Tensor | Knots | None = None) -> Tensor:
        """As of :class:`~waveflow.networks.WaveNetStream`; a context that is linear between frames is told by them."""
        w, batch, length = self._weights, len(self._heard), x.shape[-1]
        check_block(w, batch, x, context)
        if self._rows.shape[2] != self._front + length:
            self._rows = np.zeros((2, batch, self._front + length, self._channels), np.float32)
        heard = torch.cat([self._heard, x[:, 0].float()], 1)
        self._heard = heard[:, length:]
        first = torch.from_numpy(self._rows[0, :, self._front :, : w.first.shape[1]])
        torch.add(heard[:, :-1].unfold(1, len(w.first), 1) @ w.first, w.first_bias, out=first)
        skips = np.empty((batch, length, len(self._layers.skip_bias)), np.float32)
        self._run(self._conditions(context, batch, length), skips)
        out = torch.from_numpy(skips)
        if w.post1 is None:
            out = out[..., : w.post2.shape[1]]
        else:
            out = F.relu(F.relu(out[..., : len(w.post1)]) @ w.post1 + w.post1_bias) @ w.post2 + w.post2_bias
        return out.transpose(1, 2).unsqueeze(2)

    def _conditions(self, context: Tensor | Knots | None, batch: int, length: int) -> Conditions:
        layers, width = self._layers.gates_bias.shape
        values, knots = context, None
        if isinstance(context, Knots):
            values, knots = None, context
        values = torch.zeros(batch, 0, length) if values is None else values
        if knots is None:
            nowhere = torch.zeros(batch, 0, dtype=torch.int64)
            knots = Knots(values.new_zeros(batch, len(self._layers.of_frames), 0), nowhere, nowhere, torch.zeros(0))
        frames = knots.frames.float().transpose(1, 2) @ torch.from_numpy(self._layers.of_frames)
        return Conditions(
            values.float().transpose(1, 2).contiguous().numpy(),
            frames.unflatten(2, (layers, width)).contiguous().numpy(),
            knots.left.contiguous().numpy(),
            knots.right.contiguous().numpy(),
            knots.weight.float().contiguous().numpy(),
        )

    def _run(self, conditions: Conditions, skips: np.ndarray) -> None:
        layers, count = self._layers, len(self._layers.dilations)
        tiles = len(skips) * -(-skips.shape[1] // TILE)

        def part(which: tuple[int, int], of: tuple[int, int], begins: bool, work: Workplace) -> None:
            run(layers, self._past, self._rows, conditions, skips, work, which, of, begins)

        if self._threads == 1:
            return part((0, count), (0, tiles), True, self._work[0])
        bounds = [tiles * i // self._threads for i in range(self._threads + 1)]
        shares = list(zip(pairwise(bounds), self._work, strict=True))
        for i in range(count):
            part((i, i + 1), (0, 0), True, self._work[0])
            others = [_threads(self._threads).submit(part, (i, i + 1), of, False, work) for of, work in shares[1:]]
            part((i, i + 1), shares[0][0], False, self._work[0])
            for other in others:
                other.result()


def pack_stack(weights: CausalWeights) -> LayerWeights:
    """The weights of a stack as compiled layers want them; without ``post``, each skip goes through the end at once."""
    c = weights.gates.shape[2]
    values = {k: v.double().numpy(force=True) for k, v in weights._asdict().items() if isinstance(v, Tensor)}
    mix, bias = values["mix"], values["mix_bias"]
    skip, skip_bias = mix[..., c:], bias[:, c:].sum(0)
    if weights.post1 is None:
        skip, skip_bias = skip @ values["post2"], skip_bias @ values["post2"] + values["post2_bias"]
    return pack_layers(
        gates=values["gates"],
        gates_bias=values["gates_bias"],
        condition=values["condition"],
        mix=mix[..., :c],
        mix_bias=bias[:, :c],
        skip=skip,
        skip_bias=skip_bias,
        dilations=weights.dilations.numpy(force=True),
        residual=weights.residual,
    )


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count - 1, thread_name_prefix="waveflow-layer")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # threads stay behind in the parent
