"""Fit a flow to a table: a toy in the plane, a real table, or any file of numbers."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from density_pictures import draw_bent_grid, draw_density, draw_pairs
from torch import Tensor
from torch.distributions import MultivariateNormal

from waveflow.atomic import write_whole
from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.data import Batches, load_table
from waveflow.distributions import maximum_likelihood
from waveflow.models import IAF, MAF, NSF, CouplingFlow, PlanarFlow, VectorFlow
from waveflow.threads import use_threads
from waveflow.training import Trainer, TrainerConfig


@dataclass(frozen=True)
class Arguments:
    """Fit a flow to a table by maximum likelihood; without any flag, a MAF to two moons, in a minute on a CPU.

    Args:
        model: maf, iaf, planar, coupling, nsf-ar (autoregressive) or nsf-c (couplings).
        data: A toy (moons, rings, checkerboard, spirals, two-gaussians, eight-gaussians, pinwheel), a table of
            scikit-learn (breast-cancer, wine, diabetes), power or miniboone, or a file (csv, npy, npz, parquet).
        path: File of power or miniboone.
        drop_nan: Leave out rows with values that are not finite.
        dequantise: Add uniform noise to columns in which few values recur.
        layers: Layers of the flow (default: 5; planar 16).
        hidden: Widths of the hidden layers of each network, as [128, 128].
        activation: Of the networks.
        bins: Bins of a spline.
        bound: Where splines end, in standard deviations.
        steps: Optimizer steps in total (default: 3000; tables below 2,000 rows 300).
        batch_size: Rows per step, on each process.
        learning_rate: Of Adam, after a linear warm-up; falls with the square root of the step from step 1000 on.
        out: Folder of the run (default: runs/density-MODEL-DATA, with a number where that holds one).
        device: auto takes a CUDA GPU where there is one.
        threads: CPU threads of PyTorch.
        seed: Of everything random but the division of the table, which never changes.
        resume: Continue the run in --out (default: the last one).
        validate_every: Steps between evaluations on the validation rows; 0 for one before and one after training only.
        save_every: Steps between checkpoints; 0 for one at the end only.
    """

    model: Literal["maf", "iaf", "planar", "coupling", "nsf-ar", "nsf-c"] = "maf"
    data: str = "moons"
    path: str | None = None
    drop_nan: bool = False
    dequantise: bool = False
    layers: int | None = None
    hidden: tuple[int, ...] = (128, 128)
    activation: Literal["relu", "silu", "tanh"] = "relu"
    bins: int = 8
    bound: float = 5.0
    steps: int | None = None
    batch_size: int = 256
    learning_rate: float = 2e-3
    out: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    seed: int = 0
    resume: bool = False
    validate_every: int = 500
    save_every: int = 500


def build(args: Arguments, features: int) -> VectorFlow:
    """The model of ``--model`` for so many features."""
    if args.model == "planar":
        return PlanarFlow(features=features, layers=16 if args.layers is None else args.layers)
    fields = {
        "features": features,
        "layers": 5 if args.layers is None else args.layers,
        "hidden": args.hidden,
        "activation": args.activation,
    }
    if args.model.startswith("nsf"):
        return NSF(**fields, bins=args.bins, bound=args.bound, coupling=args.model == "nsf-c")
    return {"maf": MAF, "iaf": IAF, "coupling": CouplingFlow}[args.model](**fields)


def gaussian_log_prob(known: Tensor, rows: Tensor) -> Tensor:
    """What the Gaussian with the mean and covariance of the known rows gives to others, in float64."""
    known, rows = known.double(), rows.double()
    mean, std = known.mean(0), known.std(0)
    covariance = ((known - mean) / std).T.cov() + 1e-6 * torch.eye(len(mean), dtype=known.dtype)
    scores = MultivariateNormal(torch.zeros_like(mean), covariance).log_prob((rows - mean) / std)
    return scores - std.log().sum()


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    use_threads(args.threads)
    table = load_table(args.data, args.path, args.drop_nan, args.dequantise)
    features = len(table.columns)
    build(args, features)  # what cannot be built is said before anything is made

    few = len(table.train) < 2000
    trainer = Trainer(
        TrainerConfig(
            out=args.out or default_out(f"density-{args.model}-{Path(table.name).stem}", args.resume),
            steps=args.steps if args.steps is not None else 300 if few else 3000,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup_steps=50,
            decay_after=1000,
            clip_norm=10.0,
            ema_decay=0.995,
            device=args.device,
            seed=args.seed,
            resume=args.resume,
            validate_every=min(args.validate_every, 50) if few else args.validate_every,
            save_every=args.save_every,
        )
    )
    model = build(args, features)
    model.standardise(table.known)
    if trainer.rank == 0:
        rows = f"{len(table.train)} rows to train on, {len(table.validation)} to validate, {len(table.test)} to test"
        print(f"data: {table.name}, {features} columns, {rows}", flush=True)
        if table.dropped:
            print(f"left out {table.dropped} rows that hold values that are not finite", flush=True)
        if table.quantised:
            print(
                f"few values recur in {', '.join(table.quantised)}: the density has no bound there and the likelihood "
                "means little; --dequantise adds noise",
                flush=True,
            )

    def log_prob(model: VectorFlow, rows: Tensor) -> Tensor:
        device = next(model.parameters()).device
        return torch.cat([model.log_prob(part.to(device)).double().cpu() for part in rows.split(1000)])

    figures: list[float] = []  # of all validations
    at_step: dict[int, float] = {}

    def validate(model: VectorFlow) -> dict[str, float]:
        figures.append(log_prob(model, table.validation[:5000]).mean().item())
        return {"nats": figures[-1]}

    def sample(model: VectorFlow, log) -> None:
        at_step[log.step] = figures[-1]
        generator = torch.Generator(trainer.device).manual_seed(args.seed)
        samples = model.sample((max(len(table.test), 1000),), generator=generator)
        if features == 2:
            draw_density(log.samples / "density.png", model, table.test.to(trainer.device), samples)
            draw_bent_grid(log.samples / "grid.png", model)
        elif features > 1:
            draw_pairs(log.samples / "pairs.png", table.test, samples, table.columns)

    state = trainer.fit(
        model,
        maximum_likelihood,
        Batches([{"x": row} for row in table.train], args.batch_size, args.seed),
        validate=validate,
        sample=sample,
        show=["nats"],
    )

    # The figures to report are those of the model that was written: averaged weights, rows never looked at.
    if trainer.rank == 0:
        out = trainer.folder.path
        shift = model.bijector[0].std.double().log().sum().item()  # from the table's units to standardised ones
        rows = log_prob(VectorFlow.from_pretrained(out), table.test)
        nats, error = rows.mean().item(), (rows.std() / len(rows) ** 0.5).item()
        gaussian = gaussian_log_prob(table.known, table.test).mean().item()
        report = {
            "data": table.name,
            "test_rows": len(rows),
            "nats": nats,
            "nats_standardised": nats + shift,
            "standard_error": error,
            "gaussian_nats": gaussian,
            "gaussian_nats_standardised": gaussian + shift,
        }
        write_whole(trainer.folder.logs / "test.json", (json.dumps(report, indent=2) + "\n").encode())
        print(f"validation: {state.before['nats']:.3f} -> {state.after['nats']:.3f} nats a row, in the table's units")
        best = max(at_step, key=at_step.get, default=0)
        if best and at_step[best] > state.after["nats"] + 0.05:
            print(f"it was better at step {best}, {at_step[best]:.3f}: the flow has begun to learn rows by heart")
        for name, offset in (("standardised", shift), ("in the table's units", 0.0)):
            print(f"test: {nats + offset:.3f} ± {error:.3f} nats a row, {name} (a Gaussian: {gaussian + offset:.3f})")
        print(f"model: {out}   figures: {trainer.folder.logs / 'test.json'}   pictures: {trainer.folder.samples}")


if __name__ == "__main__":
    sys.exit(run_command(main, "train.py"))
