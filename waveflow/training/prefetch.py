"""Batches made in the background while the present one is trained on."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol


class BatchSource(Protocol):
    """Training data, such as :class:`waveflow.data.Batches`.

    ``batch`` is a function of the step alone and draws nothing from global generators. ``shard`` is only needed to
    train with several processes.
    """

    def batch(self, step: int) -> dict[str, Any]:
        """The batch of a step, counted from 0: tensors, or lists of anything else, by name."""

    def shard(self, rank: int, world_size: int) -> "BatchSource":
        """The part that one of several processes takes of every step."""


def prefetched(batch: Callable[[int], Any], start: int, stop: int, ahead: int) -> Iterator[Any]:
    """``batch(start), ..., batch(stop - 1)`` in order, up to ``ahead`` of them made before they are asked for.

    An exception of ``batch`` is raised where its result would have come.

    Args:
        batch: called from several threads at once.
        ahead: batches, and threads; 0 makes each batch when it is asked for.
    """
    if not ahead:
        yield from map(batch, range(start, stop))
        return
    with ThreadPoolExecutor(ahead, thread_name_prefix="waveflow-batch") as pool:
        waiting: deque[Future] = deque()
        try:
            for step in range(start, stop):
                waiting.append(pool.submit(batch, step))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
