"""Vocoders on a GPU: synthesis, training steps, WaveNet's samplers; beside the card's own rate of matrix products.

    python benchmarks/gpu.py --out DIR                      # all of it, the most wanted first
    python benchmarks/gpu.py --out DIR --resume             # what is not in DIR/gpu.csv yet
    python benchmarks/gpu.py --out DIR --device cpu --tiny  # a rehearsal with small models, in a minute

Every figure is written to DIR/gpu.csv and DIR/gpu.md as soon as it is there, so whatever ends the process, what was
measured stays. Random weights; wall-clock seconds, the least of several calls after a warm-up, the device idle before
and after each. Synthesis is the layers from latent and mel to waveform, upsampling included (these presets have no
whitening). FLOP are counted by torch.utils.flop_counter in the layers as they run eagerly, for training in those of
memory="store"; "share" is of the rate of an 8192 x 8192 x 8192 product in bfloat16, measured first in the same process.
"""

import csv
import io
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from waveflow.atomic import write_whole
from waveflow.cli import parse_arguments, run_command
from waveflow.errors import InputError
from waveflow.evaluation import device_name
from waveflow.models import ParallelWaveNet, VocoderModel, WaveFlow, WaveGlow, WaveNet

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
RATE, HOP = 22050, 256
FAILED = "failed"
KEY = ("task", "model", "precision", "mode", "batch", "seconds")


@dataclass(frozen=True)
class Sizes:
    """What is measured: the real thing, or a rehearsal."""

    product: int = 8192
    flows: tuple[str, ...] = ("WaveGlow ljspeech", "WaveFlow ljspeech-64", "ParallelWaveNet clarinet")
    batches: tuple[int, ...] = (1, 16)
    seconds: tuple[float, ...] = (0.5, 2, 10)
    trained: tuple[tuple[str, int], ...] = (("WaveGlow ljspeech", 24), ("WaveFlow ljspeech-64", 8))
    segment: int = 16000
    wavenets: tuple[str, ...] = ("gaussian", "mol", "softmax", "small")
    sampled: tuple[int, ...] = (1, 32)
    frames: tuple[tuple[str, int], ...] = (("graph", 40), ("kernel", 8), ("incremental", 4), ("jacobi", 4), ("full", 1))
    budget: float = 1.0  # seconds of calls for a figure, beyond the first two


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


@dataclass(frozen=True)
class Figure:
    """A line of the table: what was measured, and what came out."""

    task: str
    model: str
    precision: str = ""
    mode: str = ""
    batch: int = 1
    seconds: float = 0.0
    milliseconds: float | None = None
    samples_per_second: float | None = None
    times_real_time: float | None = None
    tflops: float | None = None
    share: float | None = None
    peak_mib: float | None = None
    note: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What it is a figure of, as text."""
        return tuple(_said(getattr(self, name)) for name in KEY)


Measurement = tuple[Figure, Callable[[], dict]]
"""What is to be measured, and the call that gives the other fields."""


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
        self.flop_trained: dict[tuple[str, str], int] = {}
        self.product = 0.0  # bf16 TFLOP/s of a matrix product

    def measurements(self, only: Sequence[str]) -> Iterator[Measurement]:
        """All of them, the most wanted first."""
        for precision in PRECISIONS:
            size = self.sizes.product
            yield Figure("product", f"{size} cubed", precision), partial(self.matrix_product, size, precision)
        yield from self._synthesis(("eager", "graph") if "synthesis" in only else ())
        if "training" in only:
            for precision in PRECISIONS:
                for name, batch in self.sizes.trained:
                    for memory in ("store", "invert"):
                        said = Figure("training", name, precision, memory, batch, round(self.sizes.segment / RATE, 4))
                        yield said, partial(self.training, name, precision, memory, batch)
        if "sampling" in only:
            for method, frames in self.sizes.frames:
                for preset in self.sizes.wavenets:
                    for batch in self.sizes.sampled:
                        said = Figure(
                            "sampling", f"WaveNet {preset}", "fp32", method, batch, round(frames * HOP / RATE, 4)
                        )
                        yield said, partial(self.sampling, preset, method, batch, frames)
        yield from self._synthesis(("compiled", "compiled, graph") if "compiled" in only else ())

    def _synthesis(self, modes: Sequence[str]) -> Iterator[Measurement]:
        for mode in modes:
            for precision in PRECISIONS:
                for name in self.sizes.flows:
                    for batch in self.sizes.batches:
                        for seconds in self.sizes.seconds:
                            said = Figure("synthesis", name, precision, mode, batch, seconds)
                            yield said, partial(self.synthesis, name, precision, mode, batch, seconds)

    @torch.no_grad()
    def matrix_product(self, size: int, precision: str) -> dict:
        """The rate of products of random matrices."""
        a, b = (torch.randn(size, size, device=self.device, dtype=PRECISIONS[precision]) for _ in range(2))
        seconds = self.least(lambda: a @ b)
        rate = 2 * size**3 / seconds / 1e12
        self.product = self.product or rate  # bf16 comes first
        return {"milliseconds": 1e3 * seconds, **self._rate(rate)}

    @torch.no_grad()
    def synthesis(self, name: str, precision: str, mode: str, batch: int, seconds: float) -> dict:
        """Waveforms of latents and mels."""
        layers = self.fast(name, precision, "compiled" in mode).layers
        z, mel = self._inputs(name, batch, seconds)
        call = partial(layers.inverse, z, mel)
        took = self.least(self._captured(call) if "graph" in mode else call)
        samples = batch * mel.shape[2] * HOP
        return self._figures(took, samples, batch * self.flop(name, seconds))

    def training(self, name: str, precision: str, memory: str, batch: int) -> dict:
        """A step of Adam on random segments."""
        torch.manual_seed(0)
        segment = self.sizes.segment
        model = type(self.model(name))(**{**vars(self.model(name).config), "memory": memory}).to(self.device)
        model.load_state_dict(self.model(name).state_dict())
        optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=self.device == "cuda")
        waveform = 0.1 * torch.randn(batch, segment, device=self.device)
        mel = torch.randn(batch, 80, -(-segment // HOP), device=self.device) - 5
        low = torch.autocast(self.device, torch.bfloat16) if precision == "bf16" else nullcontext()

        def step(count: int = batch) -> None:
            optimizer.zero_grad(set_to_none=True)
            with low:
                loss = -model(waveform[:count], mel[:count]).mean() / segment
            loss.backward()
            optimizer.step()

        if memory == "store":
            with FlopCounterMode(display=False) as counter:
                step(1)
            self.flop_trained[name, precision] = batch * counter.get_total_flops()
        step()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        took = self.least(step)
        peak = {"peak_mib": torch.cuda.max_memory_allocated() / 2**20} if self.device == "cuda" else {}
        return {**self._figures(took, batch * segment, self.flop_trained.get((name, precision))), **peak}

    @torch.no_grad()
    def sampling(self, preset: str, method: str, batch: int, frames: int) -> dict:
        """Waveforms of a WaveNet, sample by sample, whitening and upsampling included."""
        model = self.fast(f"WaveNet {preset}", "fp32", False)
        mel = torch.randn(batch, 80, frames, device=self.device) - 5
        took = self.least(lambda: model.vocode(mel, method=method))
        return self._figures(took, batch * frames * HOP)

    def least(self, call: Callable[[], object]) -> float:
        """The least seconds of a call: of three at least, more where they are short, one where it takes long."""
        first = self.seconds(call)
        if first > 20:
            return first
        self.seconds(call)
        times: list[float] = []
        while not times or (len(times) < 30 and sum(times) < self.sizes.budget) or len(times) < min(3, 10 / times[0]):
            times.append(self.seconds(call))
        return min(times)

    def seconds(self, call: Callable[[], object]) -> float:
        """Of one call, the device idle before and after it."""
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

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
        with FlopCounterMode(display=False) as counter:
            self.fast(name, "fp32", False).layers.inverse(*self._inputs(name, 1, seconds))
        return counter.get_total_flops()

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
        return {"tflops": tflops, "share": tflops / self.product}


class Table:
    """The figures so far, in a CSV file and as Markdown; each file whole after every figure.

    Args:
        folder: for ``gpu.csv`` and ``gpu.md``.
        resume: begin with what is there.
        heading: lines about where it was measured.

    Raises:
        InputError: if there is a table and ``resume`` is False, or it is no such table.
    """

    def __init__(self, folder: Path, resume: bool, heading: str):
        self.csv, self.markdown, self.heading = folder / "gpu.csv", folder / "gpu.md", heading
        self.rows: list[dict[str, str]] = []
        if self.csv.exists():
            if not resume:
                raise InputError(f"{self.csv} is there already; say --resume, or another --out")
            with open(self.csv, newline="") as file:
                self.rows = list(csv.DictReader(file))
            if self.rows and list(self.rows[0]) != [field.name for field in fields(Figure)]:
                raise InputError(f"{self.csv}: not a table of this benchmark")
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, figure: Figure) -> bool:
        """Whether it was measured; what failed was not."""
        return any(
            tuple(row[name] for name in KEY) == figure.key and not row["note"].startswith(FAILED) for row in self.rows
        )

    def add(self, figure: Figure) -> None:
        """Write it down; a figure of the same thing makes way."""
        self.rows = [row for row in self.rows if tuple(row[name] for name in KEY) != figure.key]
        self.rows.append({name: _said(value) for name, value in asdict(figure).items()})
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.csv, text.getvalue().encode())
        write_whole(self.markdown, self.in_markdown().encode())

    def in_markdown(self) -> str:
        """A table for each task, without columns that are empty in it."""
        parts = [self.heading]
        for task in dict.fromkeys(row["task"] for row in self.rows):
            rows = [row for row in self.rows if row["task"] == task]
            names = [name for name in rows[0] if name != "task" and any(row[name] for row in rows)]
            lines = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
            parts.append(f"## {task}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
        return "\n\n".join(parts) + "\n"


def _said(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return "" if value is None else str(value)


def main(argv: Sequence[str] | None = None) -> None:
    start = time.monotonic()
    args = parse_arguments(Arguments, argv)
    bench = Bench(args.device, TINY if args.tiny else Sizes())
    if args.device == "cpu":
        torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = 64  # of layers and lengths; beyond it code would run eagerly, in silence
    if args.tiny:
        torch.compiler.set_stance("force_eager")  # what is compiled is walked through, not compiled
    tf32 = "TF32" if torch.backends.cudnn.allow_tf32 else "float32"
    heading = f"# {device_name(args.device)}\n\ntorch {torch.__version__}; convolutions of fp32 in {tf32}"
    table = Table(Path(args.out), args.resume, heading + (" (a rehearsal with small models)" if args.tiny else ""))
    print(heading, flush=True)
    for figure, measure in bench.measurements(args.only):
        if figure in table and figure.task != "product":
            continue
        if time.monotonic() - start > 60 * args.minutes:
            print(f"stopped after {args.minutes:g} minutes; --resume goes on", flush=True)
            return
        try:
            found = Figure(**{**asdict(figure), **measure()})
        except Exception as error:  # out of memory, what cannot be captured or compiled: the rest is still measured
            reason = " ".join(str(error).split())[:200].replace("|", "/")
            found = Figure(**{**asdict(figure), "note": f"{FAILED}, {type(error).__name__}: {reason}"})
        if args.device == "cuda":
            torch.cuda.empty_cache()
        table.add(found)
        print(" ".join(f"{value:<10}" for value in table.rows[-1].values()).rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main, "gpu.py"))
