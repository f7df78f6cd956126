"""Which checkpoints may teach."""

import pytest
import torch

from waveflow.bijectors import Autoregressive, Chain, Conditioned, Inverse, Standardise
from waveflow.distillation import flow_of, frozen, load_teacher, require_parallel_density
from waveflow.distributions import Flow, StandardNormal
from waveflow.errors import InputError
from waveflow.models import IAF, MAF, NSF, CouplingFlow, GatedPixelCNN, MaskedConvFlow, PlanarFlow
from waveflow.networks import MADE

SMALL = {"features": 2, "layers": 1, "hidden": (4,)}


@pytest.mark.parametrize(
    "make", [lambda: MAF(**SMALL), lambda: NSF(**SMALL), lambda: MaskedConvFlow.from_preset("digits", layers=1)]
)
def test_autoregressive_checkpoints_are_loaded_frozen(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    teacher = load_teacher(tmp_path)
    assert type(teacher) is type(model) and not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert isinstance(flow_of(teacher), Flow)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IAF(**SMALL), "the IAF is an inverse autoregressive flow: its density .* solved for number by number"),
        (lambda: CouplingFlow(**SMALL), "expected an autoregressive teacher, got a CouplingFlow, which draws in one"),
        (lambda: NSF(**SMALL, coupling=True), "expected an autoregressive teacher, got a NSF"),
        (lambda: PlanarFlow(features=2), "expected an autoregressive teacher, got a PlanarFlow"),
        (
            lambda: GatedPixelCNN.from_preset("digits", layers=1),
            "holds a GatedPixelCNN, which has no continuous density",
        ),
    ],
)
def test_other_checkpoints_are_refused(make, message, tmp_path):
    make().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load_teacher(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="no checkpoint here"):
        load_teacher(tmp_path)


def test_directions_are_followed_through_every_composition():
    layer = Autoregressive(MADE(2, (4,), 2), Standardise())

    def require(bijector):
        require_parallel_density(Flow(StandardNormal(), bijector, (2,)))

    for bijector in (layer, Chain([layer]), Inverse(Inverse(layer)), Conditioned(torch.nn.Identity(), layer)):
        require(bijector)
    for bijector in (Inverse(layer), Chain([layer, Inverse(layer)]), Inverse(Chain([layer]))):
        with pytest.raises(InputError, match="number by number"):
            require(bijector)


def test_frozen_restores_what_was_mixed():
    model = MAF(**SMALL)
    some = next(model.parameters()).requires_grad_(False)
    model.bijector[1].eval()
    with pytest.raises(RuntimeError, match="on the way"), frozen(model):
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        raise RuntimeError("on the way")
    assert model.training and not model.bijector[1].training
    assert [p.requires_grad for p in model.parameters()] == [p is not some for p in model.parameters()]
