"""Batches as a pure function of (seed, step), so that a run resumes, and splits over ranks, exactly."""

from functools import lru_cache
from typing import Any, Protocol, Self

import numpy as np
from torch.utils.data import default_collate

from waveflow.errors import InputError


class EpochDataset(Protocol):
    """What ``Batches`` draws from: items that may change with the epoch, but with nothing else."""

    def __len__(self) -> int:
        """Items in one epoch."""

    def item(self, epoch: int, index: int) -> Any:
        """Item ``index`` as epoch ``epoch`` sees it (crop, noise, flip); thread-safe, free of global random state."""


class Batches:
    """An endless sequence of batches in which position is just the step.

    The items of all epochs form one sequence, each epoch a shuffled pass over the whole data set. With global batch G
    = ``batch_size * world_size``, step s takes items s G ... (s + 1) G - 1 of it, and rank r the r-th run of
    ``batch_size`` among those. Nothing is dropped: a batch may cross from one epoch into the next, and may be larger
    than the data set. The ranks together see exactly what one process with ``batch_size * world_size`` sees.

    Args:
        dataset: an ``EpochDataset``; or any map-style data set, whose ``dataset[index]`` is taken in every epoch.
        batch_size: items a step on this rank.
        seed: of the order, not negative; the data set has a seed of its own.
        rank: this process.
        world_size: all processes.

    Raises:
        InputError: for an empty data set or a number out of its range.

    Example:
        >>> class Squares:
        ...     def __len__(self):
        ...         return 5
        ...     def item(self, epoch, index):
        ...         return {"square": index**2, "epoch": epoch}
        >>> batches = Batches(Squares(), batch_size=4, seed=0)
        >>> batches.batch(1)["epoch"].tolist()
        [0, 1, 1, 1]
    """

    def __init__(self, dataset: EpochDataset, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1):
        if len(dataset) < 1:
            raise InputError("expected a data set with at least one item, got an empty one")
        if batch_size < 1:
            raise InputError(f"expected a batch size of at least 1, got {batch_size}")
        if seed < 0:
            raise InputError(f"expected a seed of at least 0, got {seed}")
        if not 0 <= rank < world_size:
            raise InputError(f"expected 0 <= rank < world size, got rank {rank} of {world_size}")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self._item = getattr(dataset, "item", lambda epoch, index: dataset[index])
        self._order = lru_cache(maxsize=4)(self._shuffle)

    def shard(self, rank: int, world_size: int) -> Self:
        """The same sequence as rank ``rank`` of ``world_size`` sees it, ``batch_size`` items each."""
        return type(self)(self.dataset, self.batch_size, self.seed, rank, world_size)

    def places(self, step: int) -> list[tuple[int, int]]:
        """(epoch, index) of every item of the batch at ``step``, counted from 0."""
        if step < 0:
            raise InputError(f"expected a step of at least 0, got {step}")
        first = (step * self.world_size + self.rank) * self.batch_size
        epochs = (divmod(position, len(self.dataset)) for position in range(first, first + self.batch_size))
        return [(epoch, int(self._order(epoch)[place])) for epoch, place in epochs]

    def batch(self, step: int) -> Any:
        """The batch at ``step``, stacked by ``torch.utils.data.default_collate``: tensors, lists of names."""
        return default_collate([self._item(epoch, index) for epoch, index in self.places(step)])

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))
