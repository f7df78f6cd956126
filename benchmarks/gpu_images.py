"""Models of images on a GPU: Glow in training and sampling beside normflows' of equal size, PixelCNN by each solver.

    pip install normflows==1.7.3                                    # without it, its rows say that it is missing
    python benchmarks/gpu_images.py --minutes 9 --out figures       # figures/glow.csv, glow.md, pixelcnn.csv, ...
    python benchmarks/gpu_images.py --minutes 9 --out figures --resume
    python benchmarks/gpu_images.py --device cpu --tiny --out figures       # a rehearsal, in a minute

Glow is the preset cifar10: L = 3, K = 32, networks of width 512, 3x32x32. A training step is noise, density, gradients
and Adam; sampling is noise, inverse and rounding to pixels, equal for both libraries. float32 lets convolutions use
TF32, as PyTorch does unless told; bf16 is autocast. Compiled are the networks in the couplings, each for its one shape:
all of the flow at once, 96 steps, takes torch.compile many minutes. Times are the least of several calls, warm-up and
compilation apart; peak memory is that of tensors. Operations are those of matrix products and convolutions, twice their
multiplications, counted by PyTorch for one image with nothing rebuilt; the first rows say what the device makes of
large products.

PixelCNN's weights are random, unless --pixelcnn names runs; Jacobi's rounds depend on them. "network a number" is what
the papers' code does: its row is the time of one pass times the numbers of an image, and not run to its end.
"""

import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import torch
from glow import perturb, smooth_images
from glow_peers import Peer, normflows
from gpu_table import Cell, Table, compile_for_one_shape, end_after, matmul_seconds, peak_bytes, seconds_of
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from waveflow.cli import parse_arguments, run_command
from waveflow.errors import InputError
from waveflow.evaluation.device_name import device_name
from waveflow.models import GatedPixelCNN, Glow, ImageModel, PixelCNN, load_model
from waveflow.networks import CouplingNet

PIXELCNNS = {"PixelCNN": PixelCNN, "GatedPixelCNN": GatedPixelCNN}
GLOW_KEYS = ("device", "library", "what", "precision", "mode", "memory", "batch")
GLOW_FIGURES = ("images_per_second", "milliseconds", "peak_mb", "tflops", "parameters", "compile_seconds")
PIXEL_KEYS = ("device", "model", "weights", "solver", "batch")
PIXEL_FIGURES = ("images_per_second", "seconds", "rounds", "numbers")
BUDGET = 5.0  # seconds of calls for a row, beyond the warm-up
TINY = {"levels": 2, "steps": 1, "hidden": 8, "height": 8, "width": 8}
TINY_PIXELS = {"height": 5, "width": 5, "hidden": 6, "layers": 1, "first_kernel": 3}


@dataclass(frozen=True)
class Arguments:
    """Measure models of images on a GPU.

    Args:
        out: Folder of the tables.
        device: Where.
        parts: Which tables, as [glow, pixelcnn].
        modes: How Glow is run, as [eager, compiled]; the former come first.
        batches: Of Glow, as [64, 256].
        pixel_batches: Of PixelCNN, as [1, 16, 64].
        presets: Of PixelCNN, as [mnist-binary, cifar10].
        pixelcnn: Folders of trained PixelCNNs, instead of random weights.
        repeats: Timed calls of each row at most.
        minutes: After which no further row is begun.
        resume: Leave out the rows that are in --out.
        tiny: Sizes for a rehearsal.
    """

    out: str = "gpu_images"
    device: Literal["cuda", "cpu"] = "cuda"
    parts: tuple[Literal["glow", "pixelcnn"], ...] = ("glow", "pixelcnn")
    modes: tuple[Literal["eager", "compiled"], ...] = ("eager", "compiled")
    batches: tuple[int, ...] = (64, 256)
    pixel_batches: tuple[int, ...] = (1, 16, 64)
    presets: tuple[str, ...] = ("mnist-binary", "mnist", "cifar10")
    pixelcnn: tuple[str, ...] = ()
    repeats: int = 10
    minutes: float = math.inf
    resume: bool = False
    tiny: bool = False

    def __post_init__(self):
        if self.repeats < 1 or not self.minutes > 0:
            raise InputError("expected --repeats of at least 1 and positive --minutes")
        if min((*self.batches, *self.pixel_batches), default=1) < 1:
            raise InputError("--batches and --pixel-batches expect numbers of at least 1")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda, but PyTorch sees no CUDA device here; --device cpu --tiny rehearses")
        for name, model in product(self.presets, PIXELCNNS.values()):
            if name not in model.PRESETS:
                raise InputError(f"--presets expects some of {', '.join(model.PRESETS)}, got {name!r}")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    end, device, out = end_after(args.minutes), torch.device(args.device), Path(args.out)
    compile_for_one_shape()
    if args.tiny:
        torch.compiler.set_stance("force_eager")  # what is compiled is walked through, not compiled
    trained = {path: pixelcnn_of(path) for path in args.pixelcnn}
    tables = []
    if "glow" in args.parts:
        tables.append(Table(out / "glow.csv", GLOW_KEYS, GLOW_FIGURES, args.resume, end))
        glow(tables[-1], device, args, "eager")
    if "pixelcnn" in args.parts:
        tables.append(Table(out / "pixelcnn.csv", PIXEL_KEYS, PIXEL_FIGURES, args.resume, end))
        pixelcnn(tables[-1], device, args, trained)
    if "glow" in args.parts:  # last, since it takes long
        glow(tables[0], device, args, "compiled")
    left_out = sum(table.left_out for table in tables)
    print(f"tables: {out}" + (f"; {left_out} rows are left for --resume" if left_out else ""))


def glow(table: Table, device: torch.device, args: Arguments, mode: str) -> None:
    if mode not in args.modes:
        return
    name = device_name(device)
    for dtype in (torch.float32, torch.bfloat16):
        size = 256 if args.tiny else 8192
        key = {"device": name, "library": "PyTorch", "what": f"product of {size} x {size} matrices"}
        key |= {"precision": str(dtype)[6:], "mode": "eager", "memory": "", "batch": ""}
        table.measure(
            lambda dtype=dtype, size=size: {"tflops": 2 * size**3 / matmul_seconds(device, dtype, size) / 1e12}, **key
        )
    rows = [
        (batch, precision, what, library, memory)
        for batch, precision, what, library, memory in product(
            args.batches,
            ("float32", "bf16"),
            ("training", "sampling"),
            ("waveflow", "normflows"),
            ("store", "invert"),
        )
        # Activations are rebuilt in training, by waveflow; what was compiled is not rebuilt in the same way.
        if memory == "store" or (what, library, mode) == ("training", "waveflow", "eager")
    ]
    for batch, precision, what, library, memory in rows:
        key = {"device": name, "library": library, "what": what, "precision": precision}
        key |= {"mode": mode, "memory": memory, "batch": batch}
        table.measure(functools.partial(glow_row, device, args, library, what, precision, mode, memory, batch), **key)


def glow_row(
    device: torch.device,
    args: Arguments,
    library: str,
    what: str,
    precision: str,
    mode: str,
    memory: str,
    batch: int,
) -> Mapping[str, Cell]:
    """Measure one call."""
    peer, images = build(library, memory, args.tiny, device, batch)
    autocast = functools.partial(torch.autocast, device.type, torch.bfloat16) if precision == "bf16" else nullcontext
    call = training(peer, images, autocast) if what == "training" else sampling(peer, batch, autocast)
    figures: dict[str, Cell] = {"parameters": sum(p.numel() for p in peer.module.parameters() if p.requires_grad)}
    operations = batch * operations_of(library, what, args.tiny, device)
    if mode == "compiled":
        torch._dynamo.reset()
        for network in networks(peer.module):
            network.compile()
        figures["compile_seconds"] = seconds_of(call, device, 1, 0)
    seconds = seconds_of(call, device, args.repeats, 1 if args.tiny else 2, BUDGET)
    figures |= {
        "images_per_second": batch / seconds,
        "milliseconds": 1e3 * seconds,
        "tflops": operations / seconds / 1e12,
    }
    peak = peak_bytes(call, device)
    return figures | ({} if peak is None else {"peak_mb": round(peak / 1e6)})


def networks(module: nn.Module) -> list[nn.Module]:
    """Those in the couplings of a Glow of either library."""
    return [part for part in module.modules() if isinstance(part, CouplingNet) or type(part).__name__ == "ConvNet2d"]


def build(library: str, memory: str, tiny: bool, device: torch.device, batch: int) -> tuple[Peer, Tensor]:
    """A Glow of either library, its scales set, called with floats in [0, 1); and images, uint8 (batch, C, H, W)."""
    torch.manual_seed(0)
    model = Glow.from_preset("cifar10", memory=memory, **(TINY if tiny else {}))
    c, flow = model.config, model.flow

    def sample(n: int) -> Tensor:
        return flow.bijector.inverse(torch.randn(n, *model.latent_shape, device=device))[0]

    peer = Peer(model, flow.log_prob, sample, lambda x: flow.inverse_error(x).max().item())
    if library == "normflows":
        peer = normflows(c.levels, c.steps, c.hidden, c.image_shape)
    peer.module.to(device)
    images = smooth_images(max(batch, 4), c.image_shape).to(device)
    with torch.no_grad():
        peer.log_prob(to_unit_interval(images))
        perturb(peer.module)
    return peer, images[:batch]


@functools.cache
def operations_of(library: str, what: str, tiny: bool, device: torch.device) -> int:
    """Of matrix products and convolutions for one image, gradients included, nothing being rebuilt."""
    peer, images = build(library, "store", tiny, device, 1)
    call = training(peer, images, nullcontext) if what == "training" else sampling(peer, 1, nullcontext)
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def to_unit_interval(images: Tensor) -> Tensor:
    return (images + torch.rand(images.shape, device=images.device)) / 256


def training(peer: Peer, images: Tensor, autocast: Callable) -> Callable[[], None]:
    """A step of the optimizer on these images."""
    optimizer = torch.optim.Adam(peer.module.parameters(), lr=1e-5, fused=images.device.type == "cuda")
    peer.module.train()

    def step() -> None:
        optimizer.zero_grad()
        with autocast():
            loss = -peer.log_prob(to_unit_interval(images)).mean() / images[0].numel()
        loss.backward()
        optimizer.step()

    return step


def sampling(peer: Peer, batch: int, autocast: Callable) -> Callable[[], Tensor]:
    """A batch of images."""
    peer.module.eval()

    @torch.no_grad()
    def sample() -> Tensor:
        with autocast():
            y = peer.sample(batch)
        return (y * 256).floor().clamp(0, 255).to(torch.uint8)

    return sample


def pixelcnn(table: Table, device: torch.device, args: Arguments, trained: Mapping[str, ImageModel]) -> None:
    """Draw by each solver, the cheapest models first."""
    sources: list[tuple[str, str, Callable[[], ImageModel]]] = [
        (f"{type(model).__name__}, {path}", "trained", lambda model=model: model) for path, model in trained.items()
    ]
    if not trained:
        sources = [
            (f"{kind}, {preset}", "random", functools.partial(random_model, model, preset, args.tiny))
            for preset, (kind, model) in product(args.presets, PIXELCNNS.items())
        ]
    for (name, weights, make), batch, solver in product(
        sources, args.pixel_batches, ("jacobi", "sequential", "network a number")
    ):
        key = {"device": device_name(device), "model": name, "weights": weights, "solver": solver, "batch": batch}
        table.measure(functools.partial(pixel_row, make, solver, batch, device, 1 if args.tiny else 3), **key)


def pixel_row(
    make: Callable[[], ImageModel], solver: str, batch: int, device: torch.device, repeats: int
) -> Mapping[str, Cell]:
    """Measure one draw of a batch."""
    model = make().to(device).eval()
    with torch.inference_mode():
        return drawing(model, solver, batch, device, repeats)


def drawing(model: ImageModel, solver: str, batch: int, device: torch.device, repeats: int) -> Mapping[str, Cell]:
    distribution, numbers = model.distribution, math.prod(model.image_shape)
    generator = torch.Generator(device).manual_seed(0)
    u = torch.rand(batch, *model.image_shape, generator=generator, device=device).clamp_min(1e-7)
    label = torch.arange(batch, device=device) % max(1, model.config.classes)
    context = nn.functional.one_hot(label, model.config.classes).float() if model.config.classes else None
    if solver == "network a number":
        images = (u * model.config.values).floor()
        seconds = numbers * seconds_of(lambda: distribution.log_prob(images, context), device, 5)
        figures = {"images_per_second": batch / seconds, "seconds": seconds, "numbers": numbers}
        return figures | {"note": "not run to its end"}
    rounds = distribution.solve(u, context, solver=solver).rounds
    seconds = seconds_of(lambda: distribution.solve(u, context, solver=solver), device, repeats, 0, BUDGET)
    figures = {"images_per_second": batch / seconds, "seconds": seconds, "numbers": numbers}
    return figures | ({"rounds": rounds} if solver == "jacobi" else {})


@torch.no_grad()
def random_model(model: type[ImageModel], preset: str, tiny: bool) -> ImageModel:
    """Away from the start, where every number has the same distribution."""
    made = model.from_preset(preset, **(TINY_PIXELS if tiny else {}))
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return made


def pixelcnn_of(path: str) -> ImageModel:
    model = load_model(path)
    if not isinstance(model, tuple(PIXELCNNS.values())):
        raise InputError(f"--pixelcnn expects runs of PixelCNNs, got a {type(model).__name__} in {path}")
    return model


if __name__ == "__main__":
    sys.exit(run_command(main, "gpu_images.py"))
