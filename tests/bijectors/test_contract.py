"""The contract, for every bijector of the library and for broken ones."""

import copy

import pytest
import torch
from registry import BIJECTORS, Conditioner, random
from torch import nn

import waveflow.bijectors
from waveflow.bijectors import (
    ActNorm,
    Affine,
    Bijector,
    Chain,
    Checkerboard,
    Coupling,
    Elementwise,
    Halves,
    InvertibleConv1x1,
    MultiScale,
    Permutation,
    Squeeze,
)
from waveflow.testing import check_bijector


@pytest.mark.parametrize("name", BIJECTORS)
def test_is_a_bijector(name):
    bijector, x, context = BIJECTORS[name]()
    check_bijector(bijector, x, context)


def test_registry_names_every_bijector():
    public = [getattr(waveflow.bijectors, name) for name in waveflow.bijectors.__all__]
    public = {c for c in public if isinstance(c, type) and issubclass(c, Bijector)} - {Bijector}
    used = {type(part) for make in BIJECTORS.values() for part in make()[0].modules()}
    assert public <= used, f"not in the registry: {public - used}"


class _Double(Bijector):
    """z = 2 x, with one property broken on request."""

    def __init__(self, broken: str = ""):
        super().__init__()
        self.broken = broken
        self.log_scale = nn.Parameter(torch.tensor(0.7))
        if broken == "forgets a parameter":
            self.unused = nn.Parameter(torch.tensor(1.0))
        if broken == "hides state":
            self.hidden = torch.rand(())

    def forward(self, x, context=None):
        n = x[0].numel() if len(x) else 1
        log_det = self.log_scale * n * torch.ones(len(x), dtype=x.dtype)
        z = x * self.log_scale.exp()
        if self.broken == "wrong log-det":
            log_det = log_det + 0.01
        if self.broken == "mixes items" and len(x):
            z = z + x.mean(0, keepdim=True)
        if self.broken == "hides state":
            z = z + self.hidden
        if self.broken == "half a log-det":
            log_det = log_det.half()
        if self.broken == "fails on nothing" and not len(x):
            x.max()
        return z, log_det

    def inverse(self, z, context=None):
        n = z[0].numel() if len(z) else 1
        log_det = -self.log_scale * n * torch.ones(len(z), dtype=z.dtype)
        if self.broken == "wrong sign":
            log_det = -log_det
        x = z * (-self.log_scale).exp()
        if self.broken == "wrong inverse":
            x = x + 1e-4
        if self.broken == "hides state":
            x = (z - self.hidden) * (-self.log_scale).exp()
        return x, log_det


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("wrong log-det", "forward log-det against autograd"),
        ("wrong sign", "opposite"),
        ("wrong inverse", r"inverse\(forward\(x\)\) = x"),
        ("mixes items", "independent"),
        ("forgets a parameter", "reaches unused"),
        ("half a log-det", "float16"),
    ],
)
def test_check_finds_what_is_broken(broken, message):
    check_bijector(_Double(), random(3, 4))
    with pytest.raises(AssertionError, match=message):
        check_bijector(_Double(broken), random(3, 4))


def test_check_finds_a_failure_on_an_empty_batch():
    with pytest.raises(RuntimeError):
        check_bijector(_Double("fails on nothing"), random(3, 4))


def test_check_leaves_the_bijector_alone():
    bijector = ActNorm(3)
    before = copy.deepcopy(bijector.state_dict())
    check_bijector(bijector, random(4, 3, 5))
    assert all(torch.equal(before[key], value) for key, value in bijector.state_dict().items())


def coupling(partition, kept=2, out=4):
    return Coupling(partition, Conditioner(kept, out), Affine())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Squeeze(2)(random(1, 3, 27, 28)),
            r"Squeeze expects height and width divisible by 2, got \(3, 27, 28\)",
        ),
        (lambda: Squeeze(8, dims=1)(random(1, 1, 20)), r"Squeeze expects length divisible by 8, got \(1, 20\)"),
        (lambda: Squeeze(2).inverse(random(1, 3, 2, 2)), "channels divisible by 4"),
        (lambda: Squeeze(2)(random(1, 3, 8)), "channels, height and width"),
        (lambda: Squeeze(2, dims=3), "dims 1 or 2, got 3"),
        (lambda: coupling(Checkerboard())(random(1, 2, 4, 3)), "even width"),
        (lambda: coupling(Halves())(random(1, 1, 4)), "at least 2 channels"),
        (
            lambda: InvertibleConv1x1(4)(random(1, 3, 5)),
            r"InvertibleConv1x1 expects 4 channels \(C, ...\), got \(3, 5\)",
        ),
        (lambda: InvertibleConv1x1(4, "lu"), 'parametrization "plain" or "plu"'),
        (lambda: Permutation(torch.tensor([0, 0, 1])), r"each of 0 ... 2 once"),
        (lambda: ActNorm(2)(random(4)), r"batch of events \(B, ...\), got shape \(4,\)"),
        (lambda: ActNorm(2)(torch.zeros(1, 2, dtype=torch.int64)), "floating tensor, got torch.int64"),
        (lambda: Elementwise(Affine(), (3, 1))(random(2, 4, 5)), r"events of shape \(3, any\), got \(4, 5\)"),
        (lambda: Affine("softplus"), "scale map out of"),
        (lambda: Chain([], memory="none"), 'memory "store" or "invert"'),
        (lambda: MultiScale([Chain([])], [1]), "after each of 1 levels but the last"),
        (lambda: MultiScale([Chain([]), Chain([])], [2])(random(1, 2, 3)), "more than 2 channels"),
        (lambda: coupling(Halves())(random(2, 4, 5), random(3, 3, 5)), "context of batch size 2, got 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_missing_context_is_named():
    bijector, x, _ = BIJECTORS["Conditioned chain"]()
    with pytest.raises(ValueError, match="Conditioned expects a context, got None"):
        bijector(x)


def test_validation_names_the_layer_that_overflows():
    flow = Chain([Squeeze(2, dims=1), Elementwise(Affine("exp"), (2, 1))])
    with torch.no_grad():
        flow[1].raw[1] = 200.0
    flow(torch.ones(1, 1, 4))
    with waveflow.bijectors.validation(), pytest.raises(FloatingPointError, match=r"Elementwise\.forward"):
        flow(torch.ones(1, 1, 4))


@pytest.mark.parametrize("name", ["Affine coupling, checkerboard", "MultiScale of an image", "1x1 convolution, PLU"])
def test_log_det_is_wide_and_the_same_under_autocast(name):
    bijector, x, context = BIJECTORS[name]()
    bijector(x, context)  # initialises ActNorm
    exact = bijector(x, context)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, log_det = bijector(x, context)
        rebuilt, _ = bijector.inverse(z, context)
    assert log_det.dtype == torch.float32 and z.dtype == torch.float32
    assert (
        rebuilt - x
    ).abs().max() < 1e-4  # both directions see the same bf16 parameters; the map itself stays float32
    torch.testing.assert_close(log_det, exact, rtol=0.02, atol=0.05)


@pytest.mark.parametrize(
    "name",
    [
        "Affine coupling, checkerboard",
        "MultiScale of a signal",
        "1x1 convolution, PLU",
        "Linear prediction, corrected envelope",
    ],
)
def test_vmap_and_compile(name):
    bijector, x, context = BIJECTORS[name]()
    bijector(x, context)
    expected = bijector(x, context)
    compiled = torch.compile(bijector, fullgraph=True, backend="eager")(x, context)
    mapped = torch.func.vmap(lambda item: bijector(item, context))(torch.stack([x, 2 * x]))
    for a, b, c in zip(expected, compiled, mapped, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c[0])
