"""Glow as normflows, nflows and FrEIA have it, for glow.py: equal levels, steps and networks.

Every constructor takes L, K, the width of the networks and the event's shape, and gives a :class:`Peer`. All networks
are 3x3, 1x1, 3x3 convolutions with ReLUs and no norms. What differs from waveflow's: nobody's split has a learned
prior; FrEIA's 1x1 convolutions are fixed rotations, as it has no learned ones, and its scale is a soft clamp.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Peer:
    """A flow of float images made by some library, with what the benchmark asks of it."""

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]
    inverse_error: Callable[[Tensor], float]


class Network(nn.Sequential):
    """Takes the context that nflows hands on, and ignores it."""

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return super().forward(x)


def network(inputs: int, outputs: int, hidden: int) -> Network:
    return Network(
        nn.Conv2d(inputs, hidden, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, hidden, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, outputs, 3, padding=1),
    )


def normflows(levels: int, steps: int, hidden: int, shape: tuple[int, int, int]) -> Peer:
    import normflows as nf

    c, h, w = shape
    bases, flows, merges = [], [], []
    for i in range(levels):
        channels = c * 2 ** (levels + 1 - i)
        blocks = [nf.flows.GlowBlock(channels, hidden, scale=True, scale_map="sigmoid") for _ in range(steps)]
        flows.append([*blocks, nf.flows.Squeeze()])
        scale = 2 ** (levels - i)
        if i:
            merges.append(nf.flows.Merge())
        bases.append(nf.distributions.DiagGaussian((channels if i == 0 else channels // 2, h // scale, w // scale)))
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)

    def inverse_error(x: Tensor) -> float:
        return (model.forward_and_log_det(model.inverse_and_log_det(x)[0])[0] - x).abs().max().item()

    return Peer(model, lambda x: model.log_prob(x, None), lambda n: model.sample(n)[0], inverse_error)


def nflows(levels: int, steps: int, hidden: int, shape: tuple[int, int, int]) -> Peer:
    from nflows import transforms
    from nflows.distributions.normal import StandardNormal
    from nflows.flows import Flow

    c, h, w = shape
    scales = transforms.MultiscaleCompositeTransform(levels)
    for _ in range(levels):
        c, h, w = 4 * c, h // 2, w // 2
        parts = [transforms.SqueezeTransform()]
        for _ in range(steps):
            mask = torch.ones(c)
            mask[: c // 2] = -1
            parts += [
                transforms.ActNorm(c),
                transforms.OneByOneConvolution(c),
                transforms.AffineCouplingTransform(mask, lambda a, b: network(a, b, hidden)),
            ]
        left = scales.add_transform(transforms.CompositeTransform(parts), (c, h, w))
        c = left[0] if left else c
    size = shape[0] * shape[1] * shape[2]
    flow = Flow(scales, StandardNormal([size]))

    def inverse_error(x: Tensor) -> float:
        return (scales.inverse(scales(x)[0])[0] - x).abs().max().item()

    return Peer(flow, flow.log_prob, flow.sample, inverse_error)


def freia(levels: int, steps: int, hidden: int, shape: tuple[int, int, int]) -> Peer:
    from FrEIA import framework as ff
    from FrEIA import modules as fm

    nodes = [ff.InputNode(*shape)]
    channels, ends = shape[0], []
    for level in range(levels):
        nodes.append(ff.Node(nodes[-1], fm.IRevNetDownsampling, {}))
        channels *= 4
        for _ in range(steps):
            rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
            nodes.append(ff.Node(nodes[-1], fm.ActNorm, {}))
            nodes.append(ff.Node(nodes[-1], fm.Fixed1x1Conv, {"M": rotation}))
            settings = {"subnet_constructor": lambda a, b: network(a, b, hidden)}
            nodes.append(ff.Node(nodes[-1], fm.AffineCouplingOneSided, settings))
        if level < levels - 1:
            nodes.append(ff.Node(nodes[-1], fm.Split, {}))
            channels //= 2
            ends.append(ff.OutputNode(nodes[-1].out1))
    ends.append(ff.OutputNode(nodes[-1]))
    graph = ff.GraphINN([*nodes, *ends], verbose=False)
    shapes = [node.input_dims[0] for node in ends]

    def log_prob(x: Tensor) -> Tensor:
        zs, log_det = graph(x)
        squares = sum(z.square().flatten(1).sum(1) for z in zs)
        size = shape[0] * shape[1] * shape[2]
        return -0.5 * squares - 0.5 * size * torch.log(torch.tensor(2 * torch.pi)) + log_det

    def inverse_error(x: Tensor) -> float:
        return (graph(graph(x)[0], rev=True)[0] - x).abs().max().item()

    return Peer(graph, log_prob, lambda n: graph([torch.randn(n, *s) for s in shapes], rev=True)[0], inverse_error)


PEERS = {"normflows": normflows, "nflows": nflows, "FrEIA": freia}
