"""Every bijector of the library, in the configurations worth testing: name -> (bijector, x, context)."""

import registry_autoregressive
import registry_glow
import registry_images
import registry_masked
import registry_models
import registry_vectors
import registry_waveflow
import torch
from torch import nn
from torch.distributions import AffineTransform

from waveflow.audio import MelConfig
from waveflow.bijectors import (
    ActNorm,
    Affine,
    Alternating,
    Chain,
    Checkerboard,
    Conditioned,
    Coupling,
    Elementwise,
    Flip,
    FromTransform,
    Halves,
    Identity,
    Inverse,
    InvertibleConv1x1,
    LinearPrediction,
    MultiScale,
    Permutation,
    Shift,
    Squeeze,
    Standardise,
)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


class Conditioner(nn.Module):
    """A small network over the channels of events of any shape, with an optional context added.

    Pointwise, unless ``mix`` lets neighbours along the last axis see each other.
    """

    def __init__(self, kept: int, out: int, context: int = 0, mix: bool = False):
        super().__init__()
        self.mix = mix
        self.first = nn.Linear(kept + context, 8)
        self.last = nn.Linear(8, out)

    def forward(self, kept, context=None):
        if self.mix:
            kept = kept + kept.roll(1, -1)
        if context is not None:
            kept = torch.cat([kept, context], 1)
        return self.last(torch.tanh(self.first(kept.movedim(1, -1)))).movedim(-1, 1)


def step(channels: int, memory_context: int = 0) -> list:
    half = channels // 2
    return [
        ActNorm(channels),
        InvertibleConv1x1(channels, generator=torch.Generator().manual_seed(3)),
        Coupling(Halves(), Conditioner(half, 2 * (channels - half), memory_context), Affine()),
    ]


def two_levels(memory: str = "store") -> MultiScale:
    return MultiScale([Chain([Squeeze(2), *step(4)], memory), Chain([Squeeze(2), *step(8)], memory)], [2])


SMALL_MEL = MelConfig(sample_rate=8000, n_fft=32, hop_length=16, win_length=32, n_mels=6, f_max=3000.0)

BIJECTORS = {
    "Identity": lambda: (Identity(), random(3, 2, 5), None),
    "Elementwise shift": lambda: (Elementwise(Shift(), (3, 1)), random(2, 3, 5), None),
    "Elementwise affine": lambda: (Elementwise(Affine(), (3, 4)), random(2, 3, 4), None),
    "Elementwise affine, sigmoid": lambda: (Elementwise(Affine("sigmoid"), (4,)), random(2, 4), None),
    "Elementwise standardise": lambda: (Elementwise(Standardise(), (3, 1, 1)), random(2, 3, 2, 2), None),
    "Shift coupling, vectors": lambda: (Coupling(Alternating(), Conditioner(3, 3), Shift()), random(3, 6), None),
    "Affine coupling, vectors, swapped": lambda: (
        Coupling(Alternating(swap=True), Conditioner(3, 6), Affine()),
        random(3, 6),
        None,
    ),
    "Affine coupling, halves": lambda: (Coupling(Halves(), Conditioner(2, 4), Affine("exp")), random(2, 4, 5), None),
    "Affine coupling, odd halves, swapped": lambda: (
        Coupling(Halves(swap=True), Conditioner(3, 4), Affine()),
        random(2, 5, 3),
        None,
    ),
    "Affine coupling, context": lambda: (
        Coupling(Halves(), Conditioner(2, 4, 3), Affine("sigmoid")),
        random(2, 4, 5),
        random(2, 3, 5),
    ),
    "Affine coupling, checkerboard": lambda: (
        Coupling(Checkerboard(), Conditioner(3, 6, mix=True), Affine()),
        random(2, 3, 4, 4),
        None,
    ),
    "Standardise coupling, checkerboard swapped": lambda: (
        Coupling(Checkerboard(swap=True), Conditioner(2, 4, mix=True), Standardise()),
        random(2, 2, 3, 4),
        None,
    ),
    "Affine coupling, checkerboard of a signal": lambda: (
        Coupling(Checkerboard(), Conditioner(2, 4, mix=True), Affine()),
        random(2, 2, 6),
        None,
    ),
    "Inverse of a coupling": lambda: (
        Inverse(Coupling(Halves(), Conditioner(2, 4), Affine())),
        random(2, 4, 3),
        None,
    ),
    "1x1 convolution": lambda: (InvertibleConv1x1(4), random(2, 4, 6), None),
    "1x1 convolution, folded": lambda: (InvertibleConv1x1(4).folded(), random(2, 4, 6), None),
    "1x1 convolution of factors, folded": lambda: (InvertibleConv1x1(4, "plu").folded(), random(2, 4, 6), None),
    "1x1 convolution, image": lambda: (InvertibleConv1x1(3), random(2, 3, 2, 4), None),
    "1x1 convolution, vectors": lambda: (InvertibleConv1x1(5), random(2, 5), None),
    "1x1 convolution, PLU": lambda: (InvertibleConv1x1(4, "plu"), random(2, 4, 6), None),
    "1x1 convolution, PLU, image": lambda: (InvertibleConv1x1(3, "plu"), random(2, 3, 2, 4), None),
    "Torch transform": lambda: (
        FromTransform(AffineTransform(1.0, torch.tensor(3.0))),
        random(2, 5),
        None,
    ),
    "Permutation": lambda: (Permutation.random(6, torch.Generator().manual_seed(0)), random(2, 6, 3), None),
    "Flip": lambda: (Flip(), random(2, 3, 2, 4), None),
    "Reversal": lambda: (Permutation.reverse(5), random(2, 5), None),
    "ActNorm": lambda: (ActNorm(3), 4 + 2 * random(4, 3, 5), None),
    "ActNorm, vectors": lambda: (ActNorm(3), random(6, 3), None),
    "Squeeze, signal": lambda: (Squeeze(4, dims=1), random(2, 2, 8), None),
    "Squeeze, image": lambda: (Squeeze(2), random(2, 3, 4, 6), None),
    "Chain": lambda: (Chain(step(4) + step(4)), random(3, 4, 5), None),
    "Chain, inverted memory": lambda: (Chain(step(4) + step(4), memory="invert"), random(3, 4, 5), None),
    "Inverse of a chain, inverted memory": lambda: (Inverse(Chain(step(4), memory="invert")), random(3, 4, 5), None),
    "Conditioned chain": lambda: (
        Conditioned(nn.Conv1d(2, 3, 1), Chain(step(4, memory_context=3), memory="invert")),
        random(2, 4, 5),
        random(2, 2, 5),
    ),
    "Linear prediction": lambda: (LinearPrediction(SMALL_MEL, 5, 4), random(2, 1, 37), random(2, 6, 3)),
    "Linear prediction, corrected envelope": lambda: (
        LinearPrediction(MelConfig.from_dict({**SMALL_MEL.to_dict(), "padding": "same"}), 6, 8, 4),
        random(2, 1, 32),
        random(2, 6, 2),
    ),
    "MultiScale of a signal": lambda: (
        Chain([Squeeze(6, dims=1), MultiScale([Chain(step(6)), Chain(step(4)), Chain(step(2))], [2, 2])]),
        random(2, 1, 24),
        None,
    ),
    "MultiScale of an image": lambda: (two_levels(), random(2, 1, 4, 4), None),
    "MultiScale, inverted memory": lambda: (two_levels("invert"), random(2, 1, 4, 4), None),
    **registry_autoregressive.BIJECTORS,
    **registry_glow.BIJECTORS,
    **registry_masked.BIJECTORS,
    **registry_images.BIJECTORS,
    **registry_models.BIJECTORS,
    **registry_vectors.BIJECTORS,
    **registry_waveflow.BIJECTORS,
}
