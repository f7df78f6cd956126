"""What all flows of images share: looking at them leaves them as they are."""

import copy

import pytest
import torch

from waveflow.models import NICE, Glow, RealNVP

MODELS = {
    "NICE": lambda: NICE.from_preset("digits", hidden=(16,)),
    "RealNVP": lambda: RealNVP.from_preset("digits", hidden=8, blocks=1),
    "Glow": lambda: Glow.from_preset("digits", steps=1, hidden=8),
}


def some_images(count):
    return torch.randint(17, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("seen", [0, 16])
@pytest.mark.parametrize("name", MODELS)
def test_encoding_decoding_and_sampling_leave_a_model_in_training_as_it_is(name, seen):
    model = MODELS[name]().train()
    if seen:
        model.initialize(some_images(seen))
    before = copy.deepcopy(model.state_dict())
    z = model.encode(some_images(3) // 2)
    model.decode(z)
    model.sample(3)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_items_of_a_batch_do_not_depend_on_each_other_in_training_mode(name):
    model = MODELS[name]().train()
    model.initialize(some_images(16))
    images = some_images(5)
    torch.testing.assert_close(model.encode(images)[:1], model.encode(images[:1]))


@pytest.mark.parametrize("name", MODELS)
def test_frozen_parts_stay_frozen(name):
    model = MODELS[name]().train()
    model.flow.eval()
    model.sample(1)
    assert model.training and not model.flow.training


@pytest.mark.parametrize("name", MODELS)
def test_latents_of_another_precision_are_decoded(name):
    model = MODELS[name]().eval()
    images = some_images(4)
    z = model.encode(images)
    assert torch.equal(model.decode(z.double()), images)
