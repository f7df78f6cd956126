"""Image sets in memory, how they are divided, and what changes from epoch to epoch."""

import hashlib
from itertools import chain

import pytest
import torch

from waveflow.data import Batches, FreshBinary, Images, RandomCrops, RandomFlips, binarise
from waveflow.data.image_set import divide
from waveflow.errors import InputError


def numbered(n, values=256, labels=True):
    """Image i is filled with i."""
    images = torch.arange(n).byte().reshape(n, 1, 1, 1).expand(n, 1, 2, 3).clone()
    return Images(images, torch.arange(n) if labels else None, values)


def test_items_make_batches():
    batch = Batches(numbered(10), batch_size=20).batch(0)
    assert batch["images"].shape == (20, 1, 2, 3) and batch["images"].dtype == torch.uint8
    assert batch["label"].shape == (20,) and batch["label"].dtype == torch.int64
    assert torch.equal(batch["images"][:, 0, 0, 0].long(), batch["label"])
    assert sorted(batch["label"].tolist()) == sorted(2 * list(range(10)))
    assert set(Batches(numbered(10, labels=False), 4).batch(0)) == {"images"}


@pytest.mark.parametrize("labels", [True, False])
def test_batches_in_order_see_every_image_once(labels):
    batches = list(numbered(10, labels=labels).batches(4))
    assert [len(batch["images"]) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch["images"] for batch in batches])[:, 0, 0, 0].tolist() == list(range(10))
    assert all(("label" in batch) == labels for batch in batches)


@pytest.mark.parametrize(("shares", "sizes"), [(3, [91, 10, 11]), (2, [101, 11])])
def test_a_set_is_divided_without_loss_and_always_alike(shares, sizes):
    parts, again = divide(numbered(112), shares), divide(numbered(112), shares)
    assert [len(part) for part in parts] == sizes
    labels = [part.labels.tolist() for part in parts]
    assert sorted(chain(*labels)) == list(range(112)) and labels == [part.labels.tolist() for part in again]
    assert labels[-1] != list(range(112 - sizes[-1], 112))
    for part in parts:
        assert torch.equal(part.images[:, 0, 0, 0].long(), part.labels)


def test_crops_come_from_anywhere_and_follow_their_seed():
    pictures = [(torch.arange(20 * 30).reshape(1, 20, 30) % 251).byte(), torch.full((1, 9, 8), 255).byte()]
    crops = RandomCrops(pictures, size=8, crops=600, seed=1)
    assert crops.shape == (1, 8, 8) and len(crops) == 600
    places = {
        pictures[0][:, top : top + 8, left : left + 8].numpy().tobytes() for top in range(13) for left in range(23)
    }
    drawn = {crops.item(0, index)["images"].numpy().tobytes() for index in range(0, 600, 2)}
    assert drawn <= places and len(drawn) > 0.5 * len(places)
    corners = {pictures[0][:, top : top + 8, left : left + 8].numpy().tobytes() for top in (0, 12) for left in (0, 22)}
    epochs = {crops.item(epoch, 0)["images"].numpy().tobytes() for epoch in range(2000)}
    assert corners <= epochs
    assert all((crops.item(0, index)["images"] == 255).all() for index in range(1, 600, 2))
    assert torch.equal(crops.item(3, 4)["images"], crops.item(3, 4)["images"])
    other = RandomCrops(pictures, size=8, crops=600, seed=2)
    for different in (crops.item(4, 4), crops.item(3, 6), other.item(3, 4)):
        assert not torch.equal(crops.item(3, 4)["images"], different["images"])


def test_half_of_the_images_are_mirrored():
    images = Images(torch.arange(3).byte().expand(400, 1, 2, 3).clone(), torch.arange(400))
    flips = RandomFlips(images, seed=0)
    mirrored = []
    for index in range(400):
        item = flips.item(1, index)
        row = item["images"][0, 0].tolist()
        assert row in ([0, 1, 2], [2, 1, 0]) and item["label"] == index
        mirrored.append(row == [2, 1, 0])
    assert 160 < sum(mirrored) < 240
    assert mirrored != [flips.item(2, i)["images"][0, 0, 0] == 2 for i in range(400)]
    assert mirrored == [bool(flips.item(1, i)["images"][0, 0, 0] == 2) for i in range(400)]
    assert torch.equal(images.images[:, 0, 0], torch.tensor([0, 1, 2]).byte().expand(400, 3))


@pytest.mark.parametrize("values", [256, 17])
def test_binary_pixels_are_one_as_often_as_they_are_bright(values):
    ramp = torch.arange(values).byte().reshape(1, 1, 1, values)
    images = Images(ramp.expand(300, 1, 20, values).clone(), values=values)
    fresh = FreshBinary(images, seed=0)
    drawn = torch.stack([fresh.item(0, i)["images"] for i in range(300)])
    fixed = binarise(images, seed=0)
    assert fresh.values == fixed.values == 2 and fresh.shape == fixed.shape == (1, 20, values)
    for draw in (drawn, fixed.images):
        assert draw.dtype == torch.uint8 and draw.unique().tolist() == [0, 1]
        share = draw.float().mean((0, 1, 2))
        assert (share - torch.arange(values) / (values - 1)).abs().max() < 4 * 0.5 / 6000**0.5
        assert share[0] == 0 and share[-1] == 1


def test_binary_images_are_drawn_anew_each_epoch_but_once_for_the_test():
    images = Images(torch.full((4, 1, 8, 8), 128).byte(), torch.arange(4))
    fresh = FreshBinary(images, seed=5)
    item = fresh.item(1, 2)
    assert item["label"] == 2 and torch.equal(item["images"], fresh.item(1, 2)["images"])
    others = (fresh.item(2, 2), fresh.item(1, 3), FreshBinary(images, seed=6).item(1, 2))
    assert not any(torch.equal(item["images"], other["images"]) for other in others)
    assert torch.equal(binarise(images, 0).images, binarise(images, 0).images)
    assert not torch.equal(binarise(images, 0).images, binarise(images, 1).images)
    assert not torch.equal(binarise(images, 0).images[0], binarise(images, 0).images[1])


def test_the_one_draw_never_changes():
    """Figures on it would no longer compare."""
    images = Images((torch.arange(3000) % 256).byte().reshape(3, 1, 10, 100))
    digest = hashlib.sha256(binarise(images, 0).images.numpy().tobytes()).hexdigest()
    assert digest == "58bcadd053f123db53e175bf2cd5341bea69f55d970fdea2e1883845bf23235d"


@pytest.mark.parametrize(
    ("images", "labels", "values", "message"),
    [
        (torch.rand(2, 1, 3, 3), None, 256, r"got torch.float32 .*; floats in \[0, 1\] become pixels by"),
        (torch.zeros(2, 3, 3).byte(), None, 256, r"got torch.uint8 \(2, 3, 3\)"),
        (torch.full((2, 1, 3, 3), 17).byte(), None, 17, "pixels 0 ... 16, got one of 17"),
        (
            torch.zeros(2, 1, 3, 3).byte(),
            torch.zeros(3).long(),
            256,
            r"each of 2 images, got torch.int64 \(3,\)",
        ),
        (torch.zeros(2, 1, 3, 3).byte(), torch.zeros(2).byte(), 256, "got torch.uint8"),
        (torch.zeros(2, 1, 3, 3).byte(), torch.tensor([0, -1]), 256, "labels from 0, got -1"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, labels, values, message):
    with pytest.raises(InputError, match=message):
        Images(images, labels, values)


def test_numbers_out_of_range_are_refused():
    picture = torch.zeros(3, 20, 30).byte()
    with pytest.raises(InputError, match="crops of 1 to 20 pixels, got 21"):
        RandomCrops([picture], 21)
    with pytest.raises(InputError, match="seed of at least 0, got -1"):
        RandomCrops([picture], 8, seed=-1)
    for kind in (RandomFlips, FreshBinary):
        with pytest.raises(InputError, match="seed of at least 0, got -1"):
            kind(numbered(3), seed=-1)
    with pytest.raises(InputError, match="at least 20 images, to hold some of them out, got 19"):
        divide(numbered(19), 3)
    with pytest.raises(InputError, match="batch size of at least 1, got 0"):
        next(numbered(3).batches(0))
