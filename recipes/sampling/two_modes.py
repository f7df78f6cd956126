"""Sample a two-mode energy in the plane: a random walk, Langevin, and a flow that jumps between the modes."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from comparison import Comparison
from pictures import draw_planes, draw_traces
from torch import Tensor

from waveflow.cli import parse_arguments, run_command
from waveflow.cli.loading import check_seed
from waveflow.errors import InputError
from waveflow.models import CouplingFlow
from waveflow.sampling import MALA, Cycle, Independence, LatentTarget, RandomWalk, fit_to_samples, run_chains, tune
from waveflow.threads import use_threads


@dataclass(frozen=True)
class Arguments:
    """Compare samplers on a two-mode energy in 2-D; half a minute on one CPU core.

    Args:
        chains: Chains side by side.
        draws: Draws of each chain.
        warmup: Steps of each chain before them.
        layers: Couplings of the flow.
        hidden: Units of a conditioner's hidden layers.
        rounds: How often the flow is fitted to chains that it has helped to mix.
        fit_steps: Optimizer steps of each round.
        out: Folder for the table and the pictures.
        threads: CPU threads of PyTorch.
        seed: Of everything random.
    """

    chains: int = 64
    draws: int = 1000
    warmup: int = 200
    layers: int = 6
    hidden: int = 32
    rounds: int = 3
    fit_steps: int = 500
    out: str = "runs/two-modes"
    threads: int = 1
    seed: int = 0


def log_target(x: Tensor) -> Tensor:
    """Minus the energy: a ring of radius 2 of which the left side weighs three times the right.

    After U_1 of Rezende & Mohamed, 2015 (arXiv:1505.05770), where both sides weigh the same.
    """
    ring = ((x.norm(dim=1) - 2) / 0.4).square()
    sides = torch.stack([0.25 * torch.exp(-0.5 * ((x[:, 0] - s) / 0.6).square()) for s in (2, -2, -2, -2)])
    return -0.5 * ring + sides.sum(0).clamp_min(1e-30).log()


def by_quadrature() -> tuple[float, float]:
    """P(x_1 > 0) and the log of the normaliser, on a fine grid."""
    line = torch.linspace(-6, 6, 1200, dtype=torch.float64)
    density = log_target(torch.cartesian_prod(line, line)).exp().reshape(1200, 1200)
    return (density[600:].sum() / density.sum()).item(), (density.sum() * (line[1] - line[0]) ** 2).log().item()


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    for name in ("chains", "draws", "layers", "hidden", "rounds", "fit_steps"):
        least = {"chains": 2, "draws": 4}.get(name, 1)
        if getattr(args, name) < least:
            raise InputError(f"--{name.replace('_', '-')} expects at least {least}, got {getattr(args, name)}")
    check_seed(args.seed)
    use_threads(args.threads)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(args.seed)

    # Moves in the plane, their step sizes tuned.
    start = 2 * torch.randn(args.chains, 2, generator=generator)
    walk, there = tune(RandomWalk(log_target, 1.0), start, generator=generator)
    mala, _ = tune(MALA(log_target, 0.1), start, generator=generator)

    # The flow learns from chains, at first of the random walk alone, then of walk and flow in turn: these get the
    # weights of the modes right, which the walk does not. (Reverse KL, without samples, falls into the larger mode.)
    # It is fixed from here on: a proposal that goes on learning from the chain it proposes to would bias it.
    began = time.perf_counter()
    torch.manual_seed(args.seed)
    flow = CouplingFlow(
        features=2, layers=args.layers, hidden=(args.hidden, args.hidden), activation="silu", scale="tanh_exp"
    )
    learning = walk
    for _ in range(args.rounds):
        chains = run_chains(learning, there, draws=200, generator=generator)
        losses = fit_to_samples(flow, chains.pooled(), args.fit_steps, 256, 5e-3, generator)
        learning, there = Cycle([walk, Independence(log_target, flow)]), chains.state.x
        print(f"flow fitted to chains: {sum(losses[-20:]) / len(losses[-20:]):.3f} nats", flush=True)
    print(f"flow ready in {time.perf_counter() - began:.1f} s")

    truth, log_normaliser = by_quadrature()
    figures = {f"P(x1 > 0) = {truth:.3f}": lambda x: f"{(x[..., 0] > 0).double().mean():.3f}"}
    compared = Comparison(start, args.draws, args.warmup, generator, figures)

    compared.chains("random walk", walk)
    compared.chains("MALA", mala)

    # The flow as proposal. Its own chains start at its own draws: from where it hardly ever draws they would not move.
    jump = Independence(log_target, flow)
    from_flow = flow.sample((args.chains,), generator=generator).detach()
    compared.chains("flow proposals", jump, from_flow)
    compared.chains("random walk, flow proposals in turn", Cycle([walk, jump]))
    weighted = compared.importance("importance sampling by the flow", log_target, flow)

    # The flow's latent space, where the target is nearly one round hill.
    latent = LatentTarget(log_target, flow)
    there = latent.to_latent(from_flow)
    latent_walk, _ = tune(RandomWalk(latent, 1.0), there, generator=generator)
    latent_mala, _ = tune(MALA(latent, 0.5), there, steps=200, generator=generator)
    compared.chains("random walk in latent space", latent_walk, there, latent.to_data)
    compared.chains("MALA in latent space", latent_mala, there, latent.to_data)

    compared.write(out)
    draw_planes(out / "draws.png", compared.rows, log_target)
    draw_traces(out / "traces.png", compared.rows, coordinate=0, name="x1")
    evidence = weighted.log_evidence()
    print(f"\n{compared.table()}\n")
    print(
        f"log of the normaliser: {evidence.value:.4f} +- {evidence.standard_error:.4f} by importance sampling, "
        f"{log_normaliser:.4f} by quadrature"
    )
    print(f"{out / 'table.md'}, {out / 'draws.png'}, {out / 'traces.png'}")


if __name__ == "__main__":
    sys.exit(run_command(main, "two_modes.py"))
