"""Vocoders on a GPU: synthesis, training steps, WaveNet's samplers; beside the card's own rate of matrix products.

    python benchmarks/gpu.py --out DIR                      # all of it, the most wanted first
    python benchmarks/gpu.py --out DIR --resume             # what is not in DIR/gpu.csv yet
    python benchmarks/gpu.py --out DIR --device cpu --tiny  # a rehearsal with small models, in a minute

Every figure is written to DIR/gpu.csv and DIR/gpu.md as soon as it is there, so whatever ends the process, what was
measured stays. Random weights; wall-clock seconds, the least of several calls after a warm-up, the device idle before
and after each. Synthesis is the layers from latent and mel to waveform, upsampling included (these presets have no
whitening); compiled means compiled for that one shape, which "compile_seconds" tells the first call of. FLOP are
counted by torch.utils.flop_counter in the layers as they run eagerly, for training in those of memory="store"; "share"
is of the rate of an 8192 x 8192 x 8192 product in bfloat16, measured first in the same process. "peak_mib" of training
is model, gradients, optimizer and activations.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from gpu_table import (
    Table,
    allocated,
    compile_for_one_shape,
    end_after,
    matmul_seconds,
    peak_bytes,
    seconds_of,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from waveflow.cli import parse_arguments, run_command
from waveflow.errors import InputError
from waveflow.evaluation import device_name
from waveflow.models import ParallelWaveNet, VocoderModel, WaveFlow, WaveGlow, WaveNet

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
RATE, HOP = 22050, 256
KEYS = ("task", "model", "precision", "mode", "batch", "seconds")
FIGURES = (
    "milliseconds",
    "samples_per_second",
    "times_real_time",
    "tflops",
    "share",
    "peak_mib",
    "compile_seconds",
)


@dataclass(frozen=True)
class Sizes:
    """What is measured: the real thing, or a rehearsal."""

    product: int = 8192
    flows: tuple[str, ...] = ("WaveGlow ljspeech", "WaveFlow ljspeech-64", "ParallelWaveNet clarinet")
    batches: tuple[int, ...] = (1, 16)
    seconds: tuple[float, ...] = (10, 2, 0.5)
    trained: tuple[tuple[str, int], ...] = (("WaveGlow ljspeech", 24), ("WaveFlow ljspeech-64", 8))
    segment: int = 16000
    wavenets: tuple[str, ...] = ("gaussian", "mol", "softmax", "small")
    sampled: tuple[int, ...] = (1, 32)
    frames: tuple[tuple[str, int], ...] = (("graph", 40), ("kernel", 8), ("incremental", 4), ("jacobi", 4), ("full", 1))
    budget: float = 1.0  # seconds of calls for a figure, beyond the warm-up


TINY = Sizes(
    product=128,
    flows=("WaveGlow tiny", "WaveFlow tiny", "ParallelWaveNet tiny"),
    batches=(1, 2),
    seconds=(0.05, 0.1),
    trained=(("WaveGlow tiny", 2), ("WaveFlow tiny", 1)),
    segment=1024,
    wavenets=("tiny",),
    sampled=(1, 2),
    frames=(("graph", 1), ("kernel", 1), ("incremental", 1), ("jacobi", 1)),
    budget=0.0,
)


@dataclass(frozen=True)
class Arguments:
    """Measure vocoders on a GPU.

    Args:
        out: Folder for gpu.csv and gpu.md.
        device: Where.
        tiny: Small models and little of everything, to rehearse it.
        resume: Go on where an earlier call was, with what is in --out.
        minutes: No figure is begun after so many.
        only: A list of what to measure: synthesis, training, sampling, compiled (synthesis by torch.compile).
    """

    out: str = "runs/gpu"
    device: Literal["cuda", "cpu"] = "cuda"
    tiny: bool = False
    resume: bool = False
    minutes: float = math.inf
    only: tuple[Literal["synthesis", "training", "sampling", "compiled"], ...] = (
        "synthesis",
        "training",
        "sampling",
        "compiled",
    )

    def __post_init__(self):
        if not self.minutes > 0:
            raise InputError(f"--minutes expects a positive number, got {self.minutes}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device is cuda, but PyTorch sees no CUDA device here; rehearse by --device cpu --tiny")


Measurement = tuple[dict[str, Any], Callable[[], dict]]
"""The keys of what is to be measured, and the call that gives the figures."""


class Bench:
    """The device and how it is timed.

    Args:
        device: cuda or cpu.
        sizes: of everything.
    """

    def __init__(self, device: str, sizes: Sizes):
        self.device, self.sizes = device, sizes
        self.model = cache(self._model)
        self.fast = cache(self._fast)
        self.flop = cache(self._flop)
        self.flop_trained = cache(self._flop_trained)
        self.product = 0.0  # bf16 TFLOP/s of a matrix product

    def measurements(self, only: Sequence[str]) -> Iterator[Measurement]:
        """All of them, the most wanted first."""
        for precision in PRECISIONS:
            size = self.sizes.product
            yield _keys("product", f"{size} cubed", precision), partial(self.matrix_product, size, precision)
        for precision in PRECISIONS:
            if "synthesis" in only:
                yield from self._synthesis(precision, ("eager", "graph"))
            if "training" in only:
                yield from self._training(precision)
            if "compiled" in only:
                yield from self._synthesis(precision, ("compiled", "compiled, graph"))
            if "sampling" in only and precision == "fp32":
                yield from self._sampling()

    def _synthesis(self, precision: str, modes: Sequence[str]) -> Iterator[Measurement]:
        for name in self.sizes.flows:
            for seconds in self.sizes.seconds:
                for batch in self.sizes.batches:
                    for mode in modes:  # one after the other, so that what is compiled is compiled once
                        keys = _keys("synthesis", name, precision, mode, batch, seconds)
                        yield keys, partial(self.synthesis, name, precision, mode, batch, seconds)

    def _training(self, precision: str) -> Iterator[Measurement]:
        for name, batch in self.sizes.trained:
            for memory in ("store", "invert"):
                keys = _keys("training", name, precision, memory, batch, self.sizes.segment / RATE)
                yield keys, partial(self.training, name, precision, memory, batch)

    def _sampling(self) -> Iterator[Measurement]:
        for method, frames in self.sizes.frames:
            if (method, self.device) == ("kernel", "cuda"):
                continue  # for CPUs
            for preset in self.sizes.wavenets:
                for batch in self.sizes.sampled:
                    keys = _keys("sampling", f"WaveNet {preset}", "fp32", method, batch, frames * HOP / RATE)
                    yield keys, partial(self.sampling, preset, method, batch, frames)

    @torch.no_grad()
    def matrix_product(self, size: int, precision: str) -> dict:
        """The rate of products of random matrices."""
        seconds = matmul_seconds(self.device, PRECISIONS[precision], size)
        rate = 2 * size**3 / seconds / 1e12
        if precision == "bf16":
            self.product = rate
        return {"milliseconds": 1e3 * seconds, **self._rate(rate)}

    @torch.no_grad()
    def synthesis(self, name: str, precision: str, mode: str, batch: int, seconds: float) -> dict:
        """Waveforms of latents and mels."""
        if mode == "compiled":
            torch._dynamo.reset()  # code for one shape at a time
        layers = self.fast(name, precision, "compiled" in mode).layers
        z, mel = self._inputs(name, batch, seconds)
        call, figures = partial(layers.inverse, z, mel), {}
        if mode == "compiled":
            figures["compile_seconds"] = seconds_of(call, self.device, 1, 0)
        took = self.least(self._captured(call) if "graph" in mode else call)
        samples = batch * mel.shape[2] * HOP
        return figures | self._figures(took, samples, batch * self.flop(name, seconds))

    def training(self, name: str, precision: str, memory: str, batch: int) -> dict:
        """A step of Adam on random segments."""
        flop = batch * self.flop_trained(name)
        before = allocated(self.device)
        step = self._step(name, precision, memory, batch)
        took = self.least(step)
        peak = peak_bytes(step, self.device, before)
        figures = self._figures(took, batch * self.sizes.segment, flop)
        return figures | ({} if peak is None else {"peak_mib": peak / 2**20})

    @torch.no_grad()
    def sampling(self, preset: str, method: str, batch: int, frames: int) -> dict:
        """Waveforms of a WaveNet, sample by sample, whitening and upsampling included."""
        model = self.fast(f"WaveNet {preset}", "fp32", False)
        mel = torch.randn(batch, 80, frames, device=self.device) - 5
        took = self.least(lambda: model.vocode(mel, method=method))
        return self._figures(took, batch * frames * HOP)

    def least(self, call: Callable[[], object]) -> float:
        """The least seconds of a call."""
        return seconds_of(call, self.device, budget=self.sizes.budget)

    def _model(self, name: str) -> VocoderModel:
        torch.manual_seed(0)
        kind, preset = name.split()
        model = {c.__name__: c for c in (WaveGlow, WaveFlow, ParallelWaveNet, WaveNet)}[kind].from_preset(preset)
        with torch.no_grad():  # away from the start, where the networks say nothing
            for key, weight in model.named_parameters():
                if key.endswith("output.weight"):
                    weight.copy_(0.01 * torch.randn_like(weight))
        return model.to(self.device)

    def _fast(self, name: str, precision: str, compiled: bool) -> VocoderModel:
        model = self.model(name)
        if not isinstance(model, ParallelWaveNet):
            return model.for_inference(PRECISIONS[precision], compile=compiled)
        fast = model.for_inference(PRECISIONS[precision])
        for flow in fast.flows() if compiled else ():
            flow.conditioner.compile()
        return fast

    def _inputs(self, name: str, batch: int, seconds: float) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        frames = round(seconds * RATE / HOP)
        z = torch.randn(batch, *self.model(name).latent_shape(frames), generator=generator)
        return z.to(self.device), (torch.randn(batch, 80, frames, generator=generator) - 5).to(self.device)

    def _flop(self, name: str, seconds: float) -> int:
        layers, inputs = self.fast(name, "fp32", False).layers, self._inputs(name, 1, seconds)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layers.inverse(*inputs)
        return counter.get_total_flops()

    def _flop_trained(self, name: str) -> int:
        step = self._step(name, "fp32", "store", 1)
        with FlopCounterMode(display=False) as counter:
            step()
        return counter.get_total_flops()

    def _step(self, name: str, precision: str, memory: str, batch: int) -> Callable[[], None]:
        torch.manual_seed(0)
        template, segment = self.model(name), self.sizes.segment
        model = type(template)(**{**vars(template.config), "memory": memory}).to(self.device)
        model.load_state_dict(template.state_dict())
        optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=self.device == "cuda")
        waveform = 0.1 * torch.randn(batch, segment, device=self.device)
        mel = torch.randn(batch, 80, -(-segment // HOP), device=self.device) - 5
        low = torch.autocast(self.device, torch.bfloat16) if precision == "bf16" else nullcontext()

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with low:
                loss = -model(waveform, mel).mean() / segment
            loss.backward()
            optimizer.step()

        return step

    def _captured(self, call: Callable[[], object]) -> Callable[[], None]:
        if self.device != "cuda":
            raise InputError("CUDA graphs need a CUDA device")
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def _figures(self, took: float, samples: int, flop: int | None = None) -> dict:
        rate = samples / took
        return {
            "milliseconds": 1e3 * took,
            "samples_per_second": rate,
            "times_real_time": rate / RATE,
            **({} if flop is None else self._rate(flop / took / 1e12)),
        }

    def _rate(self, tflops: float) -> dict:
        return {"tflops": tflops, "share": tflops / self.product if self.product else None}


def _keys(task: str, model: str, precision: str, mode: str = "", batch: int = 1, seconds: float = 0.0) -> dict:
    return dict(zip(KEYS, (task, model, precision, mode, batch, seconds), strict=True))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    end = end_after(args.minutes)
    bench = Bench(args.device, TINY if args.tiny else Sizes())
    if args.device == "cpu":
        torch.set_num_threads(1)
    compile_for_one_shape()
    if args.tiny:
        torch.compiler.set_stance("force_eager")  # what is compiled is walked through, not compiled
    tf32 = "TF32" if torch.backends.cudnn.allow_tf32 else "float32"
    heading = f"# {device_name(args.device)}\n\ntorch {torch.__version__}; convolutions of fp32 in {tf32}"
    print(heading, flush=True)
    heading += " (a rehearsal with small models)" if args.tiny else ""
    table = Table(Path(args.out) / "gpu.csv", KEYS, FIGURES, args.resume, end, heading=heading, by="task")
    for keys, measure in bench.measurements(args.only):
        table.measure(measure, again=keys["task"] == "product", **keys)
    if table.left_out:
        print(f"stopped after {args.minutes:g} minutes; {table.left_out} rows are left for --resume", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main, "gpu.py"))
