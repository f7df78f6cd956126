"""The flows of density.py as zuko, nflows, normflows, pyro and flowjax have them: equal networks, equal splines.

Every constructor takes a kind (maf, nsf-ar, nsf-coupling, realnvp), the number of features D and the hidden widths, and
gives 5 layers whose networks are plain ReLU ones (no residual blocks), with splines of 8 bins on [-5, 5]. Densities are
the fast direction. What begins otherwise than waveflow's: nothing mixes the features between a peer's layers but a
permutation, where waveflow's NSF has linear maps too.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

LAYERS, BINS, BOUND = 5, 8, 5.0


@dataclass(frozen=True)
class TorchFlow:
    """A flow made by some PyTorch library, with what the benchmark asks of it."""

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]

    @property
    def size(self) -> int:
        return sum(p.numel() for p in self.module.parameters())

    def log_prob_backward(self, x: Tensor) -> None:
        self.module.zero_grad()
        (-self.log_prob(x).mean()).backward()


@dataclass(frozen=True)
class JaxFlow:
    """A flow of flowjax under jit; every call waits for its result."""

    size: int
    log_prob: Callable[[Tensor], Any]
    log_prob_backward: Callable[[Tensor], Any]
    sample: Callable[[int], Any]


def zuko(kind: str, features: int, hidden: Sequence[int]) -> TorchFlow:
    import zuko

    spline = {
        "univariate": partial(zuko.transforms.MonotonicRQSTransform, bound=BOUND),
        "shapes": [(BINS,), (BINS,), (BINS - 1,)],
    }
    make = zuko.flows.NICE if kind in ("nsf-coupling", "realnvp") else zuko.flows.MAF
    settings = spline if kind.startswith("nsf") else {}
    flow = make(features, transforms=LAYERS, hidden_features=list(hidden), **settings)
    return TorchFlow(
        flow,
        log_prob=lambda x: flow().log_prob(x),
        sample=lambda count: flow().sample((count,)),
        encode=lambda x: flow().transform(x),
        decode=lambda z: flow().transform.inv(z),
    )


class _Unconditional(nn.Module):
    """nflows' and normflows' couplings hand their networks a context too."""

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int]):
        super().__init__()
        self.hidden_features = hidden[-1]  # a scale of the splines' raw bins, as with networks of their own
        widths = [inputs, *hidden]
        layers = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())]
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return self.network(x)


def _alternating(features: int, odd: int) -> Tensor:
    return torch.where(torch.arange(features) % 2 == odd, 1, -1)


def _width(hidden: Sequence[int]) -> int:
    """The MADEs of nflows and normflows have hidden layers of one width."""
    if len(set(hidden)) > 1:
        raise ValueError(f"this peer's MADE expects hidden layers of one width, got {tuple(hidden)}")
    return hidden[0]


def nflows(kind: str, features: int, hidden: Sequence[int]) -> TorchFlow:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform, ReversePermutation
    from nflows.transforms.autoregressive import (
        MaskedAffineAutoregressiveTransform,
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    )
    from nflows.transforms.coupling import AffineCouplingTransform, PiecewiseRationalQuadraticCouplingTransform

    spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND} if kind.startswith("nsf") else {}
    layers = []
    for i in range(LAYERS):
        if kind in ("maf", "nsf-ar"):
            make = MaskedPiecewiseRationalQuadraticAutoregressiveTransform
            make = make if spline else MaskedAffineAutoregressiveTransform
            network = {"hidden_features": _width(hidden), "num_blocks": len(hidden) - 1, "use_residual_blocks": False}
            layers += [ReversePermutation(features), make(features=features, **network, **spline)]
        else:
            make = PiecewiseRationalQuadraticCouplingTransform if spline else AffineCouplingTransform
            layers.append(make(_alternating(features, i % 2), lambda a, b: _Unconditional(a, b, hidden), **spline))
    flow = Flow(CompositeTransform(layers), StandardNormal([features]))
    return TorchFlow(
        flow,
        log_prob=flow.log_prob,
        sample=flow.sample,
        encode=lambda x: flow._transform(x)[0],
        decode=lambda z: flow._transform.inverse(z)[0],
    )


def normflows(kind: str, features: int, hidden: Sequence[int]) -> TorchFlow:
    import normflows
    from normflows.flows import AffineCouplingBlock, MaskedAffineAutoregressive, Permute
    from normflows.flows.base import Reverse
    from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

    spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND} if kind.startswith("nsf") else {}
    layers = []
    for i in range(LAYERS):
        if kind in ("maf", "nsf-ar"):
            make = MaskedPiecewiseRationalQuadraticAutoregressive if spline else MaskedAffineAutoregressive
            network = {"hidden_features": _width(hidden), "num_blocks": len(hidden) - 1, "use_residual_blocks": False}
            layers += [Reverse(make(features=features, **network, **spline)), Permute(features)]
        elif spline:
            mask = _alternating(features, i % 2)
            make = PiecewiseRationalQuadraticCoupling(mask, lambda a, b: _Unconditional(a, b, hidden), **spline)
            layers.append(Reverse(make))
        else:
            half = features // 2
            network = _Unconditional(features - half, 2 * half, hidden)
            layers += [AffineCouplingBlock(network), Permute(features, mode="swap")]
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(features, trainable=False), layers)
    return TorchFlow(
        flow,
        log_prob=flow.log_prob,
        sample=lambda count: flow.sample(count)[0],
        encode=flow.inverse,
        decode=flow.forward,
    )


def pyro(kind: str, features: int, hidden: Sequence[int]) -> TorchFlow:
    import pyro.distributions as dist
    import pyro.distributions.transforms as T
    from pyro.nn import AutoRegressiveNN, DenseNN

    half, spline = features // 2, {"count_bins": BINS, "bound": BOUND, "order": "quadratic"}
    numbers = [BINS, BINS, BINS - 1]
    layers = []
    for i in range(LAYERS):
        if kind in ("maf", "nsf-ar"):
            order = torch.arange(features).flip(0) if i % 2 else torch.arange(features)
            of = numbers if kind == "nsf-ar" else [1, 1]
            network = AutoRegressiveNN(features, list(hidden), param_dims=of, permutation=order)
            if kind == "nsf-ar":
                layers.append(T.SplineAutoregressive(features, network, **spline).inv)
            else:
                layers.append(T.AffineAutoregressive(network).inv)
        else:
            changed = features - half
            if kind == "nsf-coupling":
                network = DenseNN(half, list(hidden), param_dims=[changed * n for n in numbers])
                layers.append(T.SplineCoupling(features, half, network, **spline, identity=True))
            else:
                layers.append(T.AffineCoupling(half, DenseNN(half, list(hidden), param_dims=[changed, changed])))
            layers.append(T.Permute(torch.arange(features).flip(0)))
    flow = dist.TransformedDistribution(dist.Normal(torch.zeros(features), 1.0).to_event(1), layers)
    modules = [t if isinstance(t, nn.Module) else t.inv for t in layers]
    module = nn.ModuleList(m for m in modules if isinstance(m, nn.Module))

    # Each transform keeps its last pair of x and z, and would give it back instead of working.
    def afresh(call: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
        def run(given: Any) -> Tensor:
            flow.clear_cache()
            return call(given.clone() if isinstance(given, Tensor) else given)

        return run

    def encode(x: Tensor) -> Tensor:
        for transform in reversed(layers):
            x = transform.inv(x)
        return x

    def decode(z: Tensor) -> Tensor:
        for transform in layers:
            z = transform(z)
        return z

    return TorchFlow(
        module,
        log_prob=afresh(flow.log_prob),
        sample=afresh(lambda count: flow.sample((count,))),
        encode=afresh(encode),
        decode=afresh(decode),
    )


def flowjax(kind: str, features: int, hidden: Sequence[int]) -> JaxFlow:
    # Read once, when jax starts.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow, masked_autoregressive_flow
    from paramax import NonTrainable, non_trainable

    make = coupling_flow if kind in ("nsf-coupling", "realnvp") else masked_autoregressive_flow
    # k inner knots are k + 1 bins.
    spline = RationalQuadraticSpline(knots=BINS - 1, interval=BOUND) if kind.startswith("nsf") else None
    flow = make(
        jax.random.key(0),
        base_dist=Normal(jnp.zeros(features)),
        transformer=spline,
        flow_layers=LAYERS,
        nn_width=_width(hidden),
        nn_depth=len(hidden),
    )
    flow = eqx.tree_at(lambda f: f.base_dist, flow, replace_fn=non_trainable)
    free, fixed = eqx.partition(flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, NonTrainable))

    @jax.jit
    def log_prob(free: Any, x: Any) -> Any:
        return eqx.combine(free, fixed).log_prob(x)

    gradient = jax.jit(jax.value_and_grad(lambda free, x: -log_prob(free, x).mean()))
    draw = eqx.filter_jit(lambda free, key, count: eqx.combine(free, fixed).sample(key, (count,)))

    def array(x: Tensor) -> Any:
        return jnp.asarray(x.numpy())

    return JaxFlow(
        sum(leaf.size for leaf in jax.tree_util.tree_leaves(free)),
        log_prob=lambda x: log_prob(free, array(x)).block_until_ready(),
        log_prob_backward=lambda x: jax.block_until_ready(gradient(free, array(x))),
        sample=lambda count: draw(free, jax.random.key(1), count).block_until_ready(),
    )


TORCH_PEERS = {"zuko": zuko, "nflows": nflows, "normflows": normflows, "pyro": pyro}
PEERS = {**TORCH_PEERS, "flowjax": flowjax}
