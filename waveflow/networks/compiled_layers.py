"""Layers of a WaveNet stack in compiled code, shared among as many threads as PyTorch computes with."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from waveflow.kernels.wavenet_layers import Conditions, LayerWeights, Workplace, run, tiles_of, workplace
from waveflow.networks.upsample import Knots
from waveflow.threads import own_threads

_LONG = 1000  # tiles of a call, beyond which Python comes in between layers, to react


class CompiledLayers:
    """The layers of a stack over B utterances on a CPU, in float32, all of a layer while a tile stays in the caches.

    Those of a causal stack go on from call to call.

    Args:
        weights: packed.
        batch: B.
    """

    def __init__(self, weights: LayerWeights, batch: int):
        self._weights, self._batch = weights, batch
        self._channels = weights.mix_bias.shape[1]
        self._past = np.zeros((batch, weights.past[-1], self._channels), np.float32)
        self._rows = np.zeros((2, batch, 0, self._channels), np.float32)
        self._work = [workplace(self._channels) for _ in range(own_threads())]

    def inputs(self, length: int, channels: int) -> Tensor:
        """(B, n, channels), where the inputs of the first layer are to be written for the next call."""
        before, after = self._weights.edges.tolist()
        if self._rows.shape[2] != before + length + after:
            self._rows = np.zeros((2, self._batch, before + length + after, self._channels), np.float32)
        return torch.from_numpy(self._rows[0, :, before : before + length, :channels])

    def __call__(self, length: int, context: Tensor | Knots | None, lengths: Tensor | None = None) -> Tensor:
        """Sums of skips (B, n, S or more), of the inputs that were written, and what is linear behind them.

        Args:
            length: n.
            context: (B, context_channels, n), or frames between which it is linear; None for a stack without.
            lengths: (B,), steps of each utterance; None for n.
        """
        skips = np.empty((self._batch, length, len(self._weights.skip_bias)), np.float32)
        self._run(self._conditions(length, context, lengths), skips)
        return torch.from_numpy(skips)

    def _conditions(self, length: int, context: Tensor | Knots | None, lengths: Tensor | None) -> Conditions:
        batch, width = self._batch, self._weights.gates_bias.shape
        values, frames = np.zeros((batch, length, 0), np.float32), np.zeros((batch, 0, *width), np.float32)
        left, right, weight = *np.zeros((2, batch, 0), np.int64), np.zeros(0, np.float32)
        if isinstance(context, Knots):
            told = context.frames.float().transpose(1, 2) @ torch.from_numpy(self._weights.of_frames)
            frames, left, right = _numpy(told.unflatten(2, width)), _numpy(context.left), _numpy(context.right)
            weight = _numpy(context.weight.float())
            fits = len(frames) == batch and left.shape == right.shape == (batch, length) and len(weight) == length
        else:
            values = values if context is None else _numpy(context.float().transpose(1, 2))
            fits = values.shape == (batch, length, self._weights.condition.shape[2])
        lengths = np.full(batch, length) if lengths is None else _numpy(lengths.long())
        if not fits or lengths.shape != (batch,):  # what follows goes by addresses
            got = None if context is None else tuple(context.shape)
            raise ValueError(f"compiled layers expect a context and lengths of {batch} x {length} samples, got {got}")
        return Conditions(values, frames, left, right, weight, lengths)

    def _run(self, conditions: Conditions, skips: np.ndarray) -> None:
        count, groups = len(self._weights.dilations), self._work[0].inputs.shape[1]
        tiles = len(skips) * tiles_of(skips.shape[1], groups)
        threads = max(1, min(len(self._work), tiles))

        def part(layers: tuple[int, int], of: tuple[int, int], begins: bool, work: Workplace) -> None:
            run(self._weights, self._past, self._rows, conditions, skips, work, layers, of, begins)

        if threads == 1:
            at_once = count if tiles < _LONG else 1
            for i in range(0, count, at_once):
                part((i, i + at_once), (0, tiles), True, self._work[0])
            return
        shares = list(zip(pairwise(tiles * i // threads for i in range(threads + 1)), self._work, strict=False))
        for i in range(count):
            part((i, i + 1), (0, 0), True, self._work[0])
            others = [_threads(len(self._work)).submit(part, (i, i + 1), of, False, work) for of, work in shares[1:]]
            part((i, i + 1), shares[0][0], False, self._work[0])
            for other in others:
                other.result()


def _numpy(x: Tensor) -> np.ndarray:
    return x.contiguous().numpy()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count - 1, thread_name_prefix="waveflow-layer")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # threads stay behind in the parent
