"""A WaveNet sampled on a CUDA device: a stretch of samples recorded once as a graph, and replayed."""

from collections.abc import Iterator

import torch
from torch import Tensor

from waveflow.errors import InputError
from waveflow.models.wavenet_sampling import Task
from waveflow.networks.wavenet_stepper import Heard, LayersOfOneSample

_STRETCH = 32  # samples of a graph


class Stretch:
    """So many samples at a time, by operations that are the same from one stretch to the next.

    Where the ring of a layer is no longer than a stretch, its rows are at fixed places of it. Longer ones have
    dilations of at least a stretch, which needs none of its own samples then: their part is looked up at its beginning,
    and what is new is written at its end, at indices that a tensor on the device counts on. So nothing depends on the
    host.

    Args:
        task: what is to be sampled.

    Raises:
        InputError: for kernels of more than 3 taps, whose rings do not divide the stretch.
    """

    def __init__(self, task: Task):
        weights = task.stack.packed()
        taps, batch = weights.gates.shape[1], len(task.z)
        if taps > 3:
            raise InputError(f'WaveNet.vocode has method="graph" for kernels of up to 3 taps, got {taps}')
        _, self._univariate = task.as_map()
        self._perceive = task.perceive
        self._heard = Heard(weights, batch)
        self.length = max(_STRETCH, self._heard.length)
        self._layers = LayersOfOneSample(weights, batch, self.length)
        self.z = task.z.new_zeros(self.length, batch)
        self.x = task.z.new_zeros(self.length, batch)
        channels = weights.condition.shape[0]
        self.context = weights.first.new_zeros(self.length, batch, channels) if channels else None
        self._steps = torch.arange(self.length, device=task.z.device)
        self._time = torch.zeros((), dtype=torch.int64, device=task.z.device)
        self._rows, self._long = [], {}
        for i, ring in enumerate(self._layers.rings):
            if len(ring) > self.length:
                new = torch.zeros_like(ring[: self.length])
                self._long[i] = new
                self._rows.append(new.unbind())
            else:
                self._rows.append(ring.unbind())
        self._dilations = weights.dilations.tolist()

    def run(self) -> None:
        """Make ``x`` (length, B) of ``z`` and ``context``, the next stretch of each."""
        layers = self._layers
        layers.look_ahead(self.context)
        for i in self._long:
            ring, dilation = layers.rings[i], self._dilations[i]
            for tap in range(len(ring) // dilation):
                at = (self._time + tap * dilation + self._steps) % len(ring)
                layers.add_tap(i, 0, tap, ring.index_select(0, at))
        for place in range(self.length):
            for i in layers.due[place]:
                if i not in self._long:
                    layers.add_older(i, place, place)
            rows = [ring[place % len(ring)] for ring in self._rows]
            params = layers(place, self._heard.window(place), rows)
            value, _ = self._univariate.inverse(self.z[place], params)
            self.x[place].copy_(value)
            self._heard.write(place, self._perceive(value))
        for i, new in self._long.items():
            ring = layers.rings[i]
            ring.index_copy_(0, (self._time + self._steps) % len(ring), new)
        self._time += self.length

    def forget(self) -> None:
        """Go back to the beginning."""
        for state in (*self._layers.rings, self._heard.values, self._time):
            state.zero_()


def sample_by_graph(task: Task) -> Iterator[Tensor]:
    """Sample by sample on a CUDA device, without the host: a graph of a stretch of samples, replayed."""
    stretch = Stretch(task)
    stream = torch.cuda.Stream(task.z.device)
    stream.wait_stream(torch.cuda.current_stream(task.z.device))
    with torch.cuda.stream(stream):
        stretch.run()  # libraries set themselves up outside of the recording
    torch.cuda.current_stream(task.z.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stretch.run()
    stretch.forget()
    yield from sample_by_stretches(task, stretch, graph.replay)


def sample_by_stretches(task: Task, stretch: Stretch, run) -> Iterator[Tensor]:
    """The pieces of a task, where ``run()`` makes the next samples of ``stretch``."""
    made, parts = 0, []
    ends = [stop for _, stop in task.pieces()]
    for start in range(0, task.z.shape[1], stretch.length):
        stop = min(start + stretch.length, task.z.shape[1])
        stretch.z[: stop - start] = task.z[:, start:stop].t()
        if task.context is not None:
            stretch.context[: stop - start] = task.context(start, stop).permute(2, 0, 1)
        run()
        parts.append(stretch.x[: stop - start].t().clone())
        while ends and ends[0] <= stop:
            joined = torch.cat(parts, 1)
            size = ends.pop(0) - made
            made += size
            yield joined[:, :size]
            parts = [joined[:, size:]]
