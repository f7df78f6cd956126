"""How well waveflow's Glow learns images beside normflows' of equal size: test bits/dim along the same training.

    pip install normflows==1.7.3
    python benchmarks/glow_quality.py                                    # the digits of scikit-learn
    python benchmarks/glow_quality.py --data mnist --path path/to/mnist

All see the same dequantised images in the same batches, with the same optimizer, warm-up, clipping and, where asked
for, average of weights. The scales of all are set from the same first 256 images. Every other choice inside the models
is the library's own default, and for normflows that of its example: scales by a sigmoid, a learned Gaussian for each
latent. A third contender, waveflow-preset, has the same sizes and the other choices of waveflow's preset for the data;
for MNIST that is a logit which pixels go through first. One thread. Finished runs are kept in --out and not repeated.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import process_time

import torch
from glow_peers import PEERS
from torch import Tensor, nn

from waveflow.atomic import write_whole
from waveflow.cli import parse_arguments, run_command
from waveflow.data import Batches, ImageSet, load_images
from waveflow.distributions.bits import bits_per_dim
from waveflow.distributions.dequantise import UniformDequantisation
from waveflow.errors import InputError
from waveflow.models import Glow
from waveflow.training.ema import EMA
from waveflow.training.image_data import some
from waveflow.training.schedule import learning_rate_factor

LIBRARIES = ("waveflow", "waveflow-preset", "normflows")
PEER = "normflows"  # whom the differences in the table are from
PRESETS = {"faces": "faces64"}  # of waveflow's Glow, where it is not called like the data
FIRST_BATCH, WARMUP_STEPS, CLIP_NORM = 256, 50, 50.0  # of the loss in bits/dim; as the recipes have them
TEST_SEED = 0  # of the noise on test images
SETTINGS = (
    "steps",
    "batch_size",
    "learning_rate",
    "average",
    "levels",
    "flow_steps",
    "hidden",
    "evaluate_every",
    "test_images",
)

LogProb = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Arguments:
    """Train Glow of waveflow, plain and as its preset, and of normflows alike, and compare test bits/dim.

    Args:
        data: As the recipes have it: digits, mnist, photographs, cifar10, faces, or a folder of images.
        path: Where the images are, unless they come inside scikit-learn.
        libraries: Which of waveflow, waveflow-preset and normflows to train, as [waveflow, normflows].
        seeds: Which seeds, as [0, 1]; of weights, order and noise.
        steps: Optimizer steps of each run.
        batch_size: Images per step.
        learning_rate: Of Adam, after a linear warm-up of 50 steps.
        average: Decay per step of the averaged weights that are evaluated; 0 for those of the last step.
        levels: Scales of the image.
        flow_steps: Steps of flow in each level.
        hidden: Width of the networks.
        evaluate_every: Steps between evaluations.
        test_images: How many, evenly spread over the test set; 0 for all.
        out: Results so far, and the place of new ones.
    """

    data: str = "digits"
    path: str | None = None
    libraries: tuple[str, ...] = ("waveflow", "normflows")
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 1500
    batch_size: int = 64
    learning_rate: float = 1e-3
    average: float = 0.0
    levels: int = 2
    flow_steps: int = 8
    hidden: int = 96
    evaluate_every: int = 250
    test_images: int = 2000
    out: str = "glow_quality.json"

    def __post_init__(self):
        for name in ("steps", "batch_size", "evaluate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} expects at least 1, got {getattr(self, name)}")
        if self.test_images < 0:
            raise InputError(f"--test-images expects at least 0, got {self.test_images}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"--learning-rate expects a positive number, got {self.learning_rate}")
        if not 0 <= self.average < 1:
            raise InputError(f"--average expects a decay in [0, 1), got {self.average}")
        if unknown := sorted(set(self.libraries) - set(LIBRARIES)):
            raise InputError(f"--libraries expects some of {', '.join(LIBRARIES)}, got {unknown[0]}")
        if min(self.seeds, default=0) < 0:
            raise InputError(f"--seeds expects seeds of at least 0, got {min(self.seeds)}")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    torch.set_num_threads(1)
    settings = {name: getattr(args, name) for name in SETTINGS}
    out = Path(args.out)
    done = {key(row) for row in finished(out, settings)}
    images = load_images(args.data, args.path, progress=False)
    for library in args.libraries:
        build(library, images, args)  # what is wrong with sizes, or missing, is said before hours of training
    for seed, library in product(args.seeds, args.libraries):
        if (images.name, seed, library) not in done:
            row = fit(images, seed, library, args)
            # Read again, since another process may have added other runs meanwhile.
            rows = [*finished(out, settings), row]
            write_whole(out, (json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n").encode())
    rows = [row for row in finished(out, settings) if row["data"] == images.name and row["seed"] in args.seeds]
    print(markdown(rows))


def build(library: str, images: ImageSet, args: Arguments) -> tuple[nn.Module, LogProb]:
    """A model of either library and its log-density of floats in [0, 1).

    Raises:
        InputError: for sizes that do not go together, data without a preset, or if normflows is not there.
    """
    channels, height, width = images.shape
    fields = {"levels": args.levels, "steps": args.flow_steps, "hidden": args.hidden}
    ours = {"channels": channels, "height": height, "width": width, "values": images.values, **fields}
    Glow.make_config(**ours)
    if library != PEER:
        preset = PRESETS.get(args.data, args.data)
        model = Glow(**ours) if library == "waveflow" else Glow.from_preset(preset, **ours)
        return model, model.flow.log_prob
    try:
        peer = PEERS["normflows"](**fields, shape=images.shape)
    except ModuleNotFoundError:
        raise InputError("the comparison needs normflows: pip install normflows") from None
    return peer.module, peer.log_prob


def fit(images: ImageSet, seed: int, library: str, args: Arguments) -> dict:
    """Train one model: what goes into the results."""
    dequantise = UniformDequantisation()
    test = some(images.test, args.test_images).images
    test, _ = dequantise(test, images.values, torch.Generator().manual_seed(TEST_SEED))
    noise = torch.Generator().manual_seed(seed)

    def batch(batches: Batches, step: int) -> Tensor:
        return dequantise(batches.batch(step)["images"], images.values, noise)[0]

    torch.manual_seed(seed)
    model, log_prob = build(library, images, args)
    with torch.no_grad():
        log_prob(batch(Batches(images.train, FIRST_BATCH, seed), 0))

    ema = EMA(model, args.average)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)
    batches = Batches(images.train, args.batch_size, seed)
    curve, not_finite, seconds = {}, 0, 0.0
    for step in range(args.steps + 1):
        if step % args.evaluate_every == 0 or step == args.steps:
            with ema.applied():
                bits = test_bits(model, log_prob, test, images.values)
            curve[str(step)] = bits.mean().item()
            print(f"{images.name}, {library}, seed {seed}, step {step}: {curve[str(step)]:.4f} bits/dim", flush=True)
        if step == args.steps:
            break
        start = process_time()
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * learning_rate_factor(step, WARMUP_STEPS)
        y = batch(batches, step)
        not_finite += not update(model, optimizer, image_bits(log_prob(y), y, images.values).mean())
        ema.update()
        seconds += process_time() - start
    return {
        "data": images.name,
        "seed": seed,
        "library": library,
        "parameters": sum(p.numel() for p in model.parameters()),
        "cpu_seconds": round(seconds, 1),
        "not_finite": not_finite,
        "bits_per_dim": curve,
        "standard_error": (bits.std() / math.sqrt(len(bits))).item(),
    }


def update(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> bool:
    """One step of the optimizer, unless loss or gradients are not finite; whether it was done."""
    optimizer.zero_grad()
    if not loss.isfinite():
        return False
    loss.backward()
    if not nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM).isfinite():
        return False
    optimizer.step()
    return True


@torch.no_grad()
def test_bits(model: nn.Module, log_prob: LogProb, y: Tensor, values: int) -> Tensor:
    model.eval()
    bits = torch.cat([image_bits(log_prob(part), part, values).double() for part in y.split(250)])
    model.train()
    return bits


def image_bits(log_density: Tensor, y: Tensor, values: int) -> Tensor:
    """Bits/dim of images, (B,), from the log-density of y = (x + u) / values: an upper bound."""
    dims = y[0].numel()
    return bits_per_dim(log_density - dims * math.log(values), dims)


def key(row: dict) -> tuple[str, int, str]:
    return row["data"], row["seed"], row["library"]


def finished(out: Path, settings: dict[str, int | float]) -> list[dict]:
    """Rows of an earlier call.

    Raises:
        InputError: if the file is another one, or its runs had other settings.
    """
    if not out.exists():
        return []
    try:
        content = json.loads(out.read_text())
        rows, before = content["rows"], content["settings"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{out}: expected results of this benchmark, got another file") from None
    if before != settings:
        raise InputError(f"{out}: expected results of {settings}, got those of {before}; --out chooses another file")
    return rows


def markdown(rows: list[dict]) -> str:
    """Test bits/dim by training step, means over seeds; differences from the peer, with their spread over seeds."""
    found = {library: {row["seed"]: row for row in rows if row["library"] == library} for library in LIBRARIES}
    steps = sorted({int(step) for row in rows for step in row["bits_per_dim"]})
    head = ["", "seeds", "parameters", "CPU s", "not finite", *(f"step {step:,}" for step in steps), "test error"]
    lines = [head, ["---"] * len(head)]
    for library, by_seed in found.items():
        if by_seed:
            own = by_seed.values()
            curve = [statistics.fmean(row["bits_per_dim"][str(step)] for row in own) for step in steps]
            lines.append(
                [
                    library,
                    str(len(own)),
                    f"{next(iter(own))['parameters']:,}",
                    f"{statistics.fmean(row['cpu_seconds'] for row in own):.0f}",
                    str(sum(row["not_finite"] for row in own)),
                    *(f"{bits:.3f}" for bits in curve),
                    f"{statistics.fmean(row['standard_error'] for row in own):.3f}",
                ]
            )
    for library in LIBRARIES:
        ours, theirs = found[library], found[PEER]
        if library != PEER and (both := sorted(ours.keys() & theirs.keys())):
            cells = []
            for step in map(str, steps):
                gaps = [ours[seed]["bits_per_dim"][step] - theirs[seed]["bits_per_dim"][step] for seed in both]
                spread = f" ± {statistics.stdev(gaps):.3f}" if len(gaps) > 1 else ""
                cells.append(f"{statistics.fmean(gaps):+.3f}{spread}")
            lines.append([f"{library} - {PEER}", str(len(both)), "", "", "", *cells, ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(run_command(main, "glow_quality.py"))
