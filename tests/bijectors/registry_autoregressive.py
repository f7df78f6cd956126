"""Autoregressive maps by every solver, of vectors and of other events: name -> (bijector, x, context)."""

import torch
from torch import nn

from waveflow.bijectors import (
    Affine,
    Autoregressive,
    Chain,
    Inverse,
    MixtureOfLogisticsCDF,
    Permutation,
    RationalQuadraticSpline,
    Shift,
    Standardise,
)
from waveflow.bijectors.solvers import Jacobi, Sequential
from waveflow.networks import MADE, degree_mask

EXACT = Jacobi(tolerance=0.0)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(13))


def maf(univariate, solver="auto", features: int = 4, **options) -> Autoregressive:
    made = MADE(features, **{"hidden": (13, 12), "outputs": univariate.params, **options})
    return Autoregressive(made, univariate, solver)


class Pixels(nn.Module):
    """The smallest conditioner of images (C, H, W): pixel by pixel from the last, all channels of one at once."""

    def __init__(self, channels: int, height: int, width: int, outputs: int):
        super().__init__()
        self.shape, self.outputs = (channels, height, width), outputs
        place = (height * width - 1 - torch.arange(height * width)).repeat(channels)
        self.register_buffer("mask", degree_mask(place.repeat(outputs), place, strict=True))
        self.linear = nn.Linear(len(place), outputs * len(place))

    def forward(self, x, context=None):
        y = nn.functional.linear(x.flatten(1), self.linear.weight * self.mask, self.linear.bias)
        return torch.tanh(y).reshape(len(x), self.outputs, *self.shape)

    def positions(self, event):
        pixels = event[1] * event[2]
        return torch.stack([c * pixels + torch.arange(pixels).flip(0) for c in range(event[0])], 1)


class SteppingPixels(Pixels):
    """Has a stepper too, one that keeps the whole image, which is enough to test with."""

    def stepper(self, batch, context=None):
        return PixelStepper(self, batch)


class PixelStepper:
    def __init__(self, network, batch):
        self.network, self.step = network, 0
        self.x = network.linear.weight.new_zeros(batch, *network.shape)

    def params(self):
        return self.network(self.x).flatten(2)[:, :, self.network.positions(self.network.shape)[self.step]]

    def push(self, values):
        self.x.flatten(1)[:, self.network.positions(self.network.shape)[self.step]] = values
        self.step += 1


class Lagged(nn.Module):
    """A causal convolution of signals (1, T) of any length, without a stepper or an order of its own."""

    def __init__(self, outputs: int):
        super().__init__()
        self.convolution = nn.Conv1d(1, outputs, 3)

    def forward(self, x, context=None):
        return torch.tanh(self.convolution(nn.functional.pad(x, (3, -1)))).unsqueeze(2)


BIJECTORS = {
    "MAF": lambda: (maf(Standardise()), random(3, 4), None),
    "MAF, order, uneven": lambda: (maf(Standardise(), order=[2, 0, 3, 1], hidden=(9,)), random(3, 4), None),
    "MAF, polished": lambda: (maf(Standardise("exp"), Sequential(polish=2)), random(3, 4), None),
    "MAF by Jacobi": lambda: (maf(Affine(), EXACT), random(3, 4), None),
    "MAF by Jacobi in blocks": lambda: (
        maf(Affine(), Jacobi(0.0, block=2), features=5, order=[4, 0, 3, 1, 2]),
        random(3, 5),
        None,
    ),
    "MAF, context": lambda: (maf(Standardise(), context=2), random(3, 4), random(3, 2)),
    "MAF, context, residual, by Jacobi": lambda: (
        maf(Standardise(), EXACT, context=2, hidden=(12,), residual=True),
        random(3, 4),
        random(3, 2),
    ),
    "Autoregressive shift": lambda: (maf(Shift()), random(3, 4), None),
    "Autoregressive spline": lambda: (maf(RationalQuadraticSpline(4, 3.0), features=3), 2 * random(4, 3), None),
    "Autoregressive mixture": lambda: (maf(MixtureOfLogisticsCDF(3), features=3), random(3, 3), None),
    "IAF": lambda: (Inverse(maf(Affine("sigmoid"), context=2)), random(3, 4), random(3, 2)),
    "Two MAFs": lambda: (Chain([maf(Standardise()), Permutation.reverse(4), maf(Standardise())]), random(3, 4), None),
    "Two MAFs, inverted memory": lambda: (
        Chain([maf(Standardise()), maf(Affine(), EXACT, order=[3, 2, 1, 0])], memory="invert"),
        random(3, 4),
        None,
    ),
    "Autoregressive, image": lambda: (
        Autoregressive(SteppingPixels(2, 2, 2, outputs=2), Standardise()),
        random(3, 2, 2, 2),
        None,
    ),
    "Autoregressive, image, by Jacobi in blocks": lambda: (
        Autoregressive(Pixels(2, 2, 3, outputs=2), Affine(), Jacobi(0.0, block=4)),
        random(3, 2, 2, 3),
        None,
    ),
    "Autoregressive, signal": lambda: (Autoregressive(Lagged(2), Standardise()), random(3, 1, 7), None),
}
