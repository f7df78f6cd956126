"""Batches as a student is trained on them."""

from typing import Any

from waveflow.errors import InputError


class Steps:
    """Batches for the trainer that tell the step: alone, as a student may need no data, or beside other batches.

    Others may come in rounds: so many of them several times, one after the other, then the next. ``place`` says which.

    Args:
        batches: the others; None for none.
        rounds: how often each comes.
        window: how many make a round.

    Example:
        >>> Steps().batch(7)
        {'step': 7}
    """

    def __init__(self, batches: Any = None, rounds: int = 1, window: int = 1):
        if rounds < 1 or window < 1:
            raise InputError(f"batches come in at least 1 round of at least 1, got {rounds} of {window}")
        self.batches, self.rounds, self.window = batches, rounds, window

    def place(self, step: int) -> int:
        """Which of the other batches comes at a step.

        Example:
            >>> [Steps(rounds=2, window=3).place(step) for step in range(9)]
            [0, 1, 2, 0, 1, 2, 3, 4, 5]
        """
        return step // (self.rounds * self.window) * self.window + step % self.window

    def batch(self, step: int) -> dict[str, Any]:
        if self.batches is None:
            return {"step": step}
        place = self.place(step)
        return {**self.batches.batch(place), "step": step, "place": place}

    def shard(self, rank: int, world_size: int) -> "Steps":
        return self if self.batches is None else Steps(self.batches.shard(rank, world_size), self.rounds, self.window)
