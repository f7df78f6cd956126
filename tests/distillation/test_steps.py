"""Batches as a student is trained on them."""

import pytest

from waveflow.distillation import Steps
from waveflow.errors import InputError


class Numbers:
    def __init__(self, first=0):
        self.first = first

    def batch(self, step):
        return {"x": self.first + step}

    def shard(self, rank, world_size):
        return Numbers(100 * rank)


def test_steps_are_told_beside_other_batches():
    assert Steps(Numbers()).batch(3) == {"x": 3, "step": 3, "place": 3}
    assert Steps(Numbers()).shard(1, 2).batch(3) == {"x": 103, "step": 3, "place": 3}
    assert Steps().shard(1, 2).batch(3) == {"step": 3}


def test_batches_come_in_rounds():
    steps = Steps(Numbers(), rounds=3, window=2).shard(1, 2)
    found = [steps.batch(step) for step in range(14)]
    assert [batch["x"] - 100 for batch in found] == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 4, 5]
    assert all(batch["place"] == batch["x"] - 100 for batch in found)
    assert [batch["step"] for batch in found] == list(range(14))
    for words in ({"rounds": 0}, {"window": 0}):
        with pytest.raises(InputError, match="at least 1 round of at least 1"):
            Steps(Numbers(), **words)
