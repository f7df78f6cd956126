"""How well waveflow's MAF and NSF fit beside zuko's of equal size: test log-likelihoods of the same runs.

    python benchmarks/density_quality.py --power path/to/power.npz

Both libraries see the same standardised rows in the same batches, with the same optimizer and the same seeds; every
other choice inside the models (first weights, bounds of scales and slopes, linear layers) is the library's own default.
Finished runs are kept in --out and not repeated. Needs zuko besides waveflow.
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
from torch import Tensor, nn
from tqdm import tqdm

from waveflow.atomic import write_whole
from waveflow.cli import parse_arguments, run_command
from waveflow.data import Batches, load_table
from waveflow.errors import InputError
from waveflow.models import MAF, NSF

try:
    import zuko
except ModuleNotFoundError:
    zuko = None

LIBRARIES = ("waveflow", "zuko")
MODELS = ("maf", "nsf")
LAYERS, BINS = 5, 8  # splines of both end at 5 standard deviations
HIDDEN = {"power": (128, 128)}
HIDDEN_TOYS = (64, 64)
CLIP_NORM = 10.0

LogProb = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Arguments:
    """Train MAF and NSF of waveflow and of zuko alike, and compare their test log-likelihoods.

    Args:
        power: File of the POWER table; without it only the toys are fitted.
        toys: Which toys, as [moons, spirals].
        seeds: How many seeds, 0 and up.
        steps: Optimizer steps of each run.
        batch_size: Rows per step.
        learning_rate: Of Adam at first; it falls to zero as half a cosine.
        out: Results so far, and the place of new ones.
    """

    power: str | None = None
    toys: tuple[str, ...] = ("moons", "checkerboard", "spirals")
    seeds: int = 3
    steps: int = 2000
    batch_size: int = 256
    learning_rate: float = 2e-3
    out: str = "density_quality.json"


@dataclass(frozen=True)
class Split:
    """Rows in standard deviations of those known: (N, D), float32."""

    train: Tensor
    test: Tensor


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    if zuko is None:
        raise InputError("the comparison needs zuko: pip install zuko")
    for name in ("seeds", "steps", "batch_size"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} expects at least 1, got {getattr(args, name)}")
    if not 0 < args.learning_rate < math.inf:
        raise InputError(f"--learning-rate expects a positive number, got {args.learning_rate}")
    torch.set_num_threads(1)
    settings = {name: getattr(args, name) for name in ("steps", "batch_size", "learning_rate")}
    names = [*(["power"] if args.power else []), *args.toys]
    splits = {name: standardised(name, args.power if name == "power" else None) for name in names}

    out = Path(args.out)
    done = {key(row) for row in finished(out, settings)}
    runs = [run for run in product(names, MODELS, range(args.seeds), LIBRARIES) if run not in done]
    for data, model, seed, library in tqdm(runs, desc="runs", disable=None):
        row = fit(data, splits[data], model, seed, library, args)
        # Read again, since another process may have added other tables meanwhile.
        rows = [*finished(out, settings), row]
        write_whole(out, (json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n").encode())
    print(markdown([row for row in finished(out, settings) if row["data"] in names]))


def standardised(name: str, path: str | None) -> Split:
    table = load_table(name, path)
    known = table.known.double()
    mean, std = known.mean(0), known.std(0, correction=0)
    return Split(*(((rows.double() - mean) / std).float() for rows in (table.train, table.test)))


def build(library: str, model: str, features: int, hidden: tuple[int, ...]) -> tuple[nn.Module, LogProb]:
    """A model of either library and its log-density; both take the features in order and in reverse by turns."""
    if library == "waveflow":
        fields = {"features": features, "layers": LAYERS, "hidden": hidden}
        flow = MAF(**fields) if model == "maf" else NSF(**fields, bins=BINS)
        return flow, flow.log_prob
    fields = {"features": features, "transforms": LAYERS, "hidden_features": hidden}
    flow = zuko.flows.MAF(**fields) if model == "maf" else zuko.flows.NSF(**fields, bins=BINS)
    return flow, lambda x: flow().log_prob(x)


def fit(data: str, split: Split, model: str, seed: int, library: str, args: Arguments) -> dict[str, str | int | float]:
    torch.manual_seed(seed)
    flow, log_prob = build(library, model, split.train.shape[1], HIDDEN.get(data, HIDDEN_TOYS))
    seconds = process_time()
    train(flow, log_prob, split.train, seed, args)
    seconds = process_time() - seconds
    with torch.no_grad():
        nats = torch.cat([log_prob(part).double() for part in split.test.split(1000)])
    return {
        "data": data,
        "model": model,
        "seed": seed,
        "library": library,
        "nats": nats.mean().item(),
        "standard_error": nats.std().item() / math.sqrt(len(nats)),
        "parameters": sum(p.numel() for p in flow.parameters()),
        "cpu_seconds": round(seconds, 1),
    }


def train(flow: nn.Module, log_prob: LogProb, rows: Tensor, seed: int, args: Arguments) -> None:
    batches = Batches(rows, args.batch_size, seed)
    optimizer = torch.optim.Adam(flow.parameters(), lr=args.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    for step in range(args.steps):
        batch = rows[[index for _, index in batches.places(step)]]
        optimizer.zero_grad()
        (-log_prob(batch).mean()).backward()
        nn.utils.clip_grad_norm_(flow.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()


def key(row: dict) -> tuple[str, str, int, str]:
    return row["data"], row["model"], row["seed"], row["library"]


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
    """Test nats a row, mean ± standard deviation over seeds; the difference with its standard error over seeds."""
    found: dict[tuple[str, str], dict[str, list[dict]]] = {}
    for row in rows:
        found.setdefault((row["data"], row["model"]), {}).setdefault(row["library"], []).append(row)
    lines = [
        "| data | model | waveflow | zuko | waveflow - zuko | error of the test mean |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (data, model), libraries in found.items():
        if set(libraries) != set(LIBRARIES):
            continue
        nats = {library: [row["nats"] for row in libraries[library]] for library in LIBRARIES}
        mean = {library: statistics.fmean(n) for library, n in nats.items()}
        std = {library: statistics.stdev(n) if len(n) > 1 else math.nan for library, n in nats.items()}
        cells = [f"{mean[library]:.3f} ± {std[library]:.3f}" for library in LIBRARIES]
        error = math.sqrt(sum(std[library] ** 2 / len(nats[library]) for library in LIBRARIES))
        difference = f"{mean['waveflow'] - mean['zuko']:+.3f} ± {error:.3f}"
        of_test = statistics.fmean(row["standard_error"] for library in LIBRARIES for row in libraries[library])
        lines.append(f"| {data} | {model.upper()} | {cells[0]} | {cells[1]} | {difference} | {of_test:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main, "density_quality.py"))
