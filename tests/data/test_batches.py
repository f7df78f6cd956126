"""Batches are a pure function of (seed, step), and ranks share them."""

from collections import Counter

import pytest
import torch
from torch.utils.data import TensorDataset

from waveflow.data import Batches
from waveflow.errors import InputError


class Places:
    """Items that say where they come from."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def item(self, epoch, index):
        return {"place": torch.tensor([epoch, index]), "name": f"{epoch}:{index}"}


def names(batches, steps):
    return [name for step in steps for name in batches.batch(step)["name"]]


def test_items_are_stacked():
    batch = Batches(Places(7), 3).batch(0)
    assert batch["place"].shape == (3, 2)
    assert [f"{e}:{i}" for e, i in batch["place"].tolist()] == batch["name"]


@pytest.mark.parametrize("batch_size", [1, 3, 5, 7, 10, 23])
def test_every_epoch_visits_every_item_once(batch_size):
    seen = names(Batches(Places(7), batch_size, seed=3), range(21))[: 7 * (21 * batch_size // 7)]
    for epoch in range(len(seen) // 7):
        assert Counter(seen[7 * epoch : 7 * epoch + 7]) == Counter(f"{epoch}:{i}" for i in range(7))


def test_epochs_and_seeds_differ_in_order():
    def orders(seed):
        places = Batches(Places(50), 50, seed=seed).places
        return [[index for _, index in places(epoch)] for epoch in range(3)]

    first, second, third = orders(0)
    assert first != second != third != first
    assert orders(0) == [first, second, third]
    assert orders(1)[0] != first
    assert first != list(range(50))


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_see_together_what_one_process_sees(world_size):
    whole = Batches(Places(11), 4 * world_size, seed=5)
    ranks = [Batches(Places(11), 4, seed=5).shard(rank, world_size) for rank in range(world_size)]
    for step in range(9):
        together = torch.cat([rank.batch(step)["place"] for rank in ranks])
        assert torch.equal(together, whole.batch(step)["place"])


def test_any_map_style_data_set_will_do():
    pixels = torch.arange(12.0).view(6, 2)
    images, labels = Batches(TensorDataset(pixels, torch.arange(6)), 6, seed=1).batch(0)
    assert torch.equal(images, pixels[labels])
    assert sorted(labels.tolist()) == list(range(6))


def test_an_error_in_an_item_reaches_the_caller():
    class Broken(Places):
        def item(self, epoch, index):
            raise InputError("a.wav: gone")

    with pytest.raises(InputError, match="gone"):
        Batches(Broken(3), 2).batch(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": Places(0)}, "empty"),
        ({"batch_size": 0}, "batch size"),
        ({"seed": -1}, "seed"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"world_size": 0}, "rank 0 of 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Batches(**{"dataset": Places(3), "batch_size": 2, **arguments})


def test_a_negative_step_is_refused():
    with pytest.raises(InputError, match="step"):
        Batches(Places(3), 2).batch(-1)
