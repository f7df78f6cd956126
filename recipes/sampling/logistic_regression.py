"""Bayesian logistic regression on the breast-cancer table: a random walk, Langevin, and a flow as proposal."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from comparison import Comparison
from pictures import draw_traces
from sklearn.datasets import load_breast_cancer
from torch import Tensor
from torch.distributions import MultivariateNormal

from waveflow.cli import parse_arguments, run_command
from waveflow.cli.loading import check_seed
from waveflow.errors import InputError
from waveflow.models import CouplingFlow
from waveflow.sampling import MALA, Cycle, Independence, LatentTarget, RandomWalk, fit_by_reverse_kl, run_chains, tune
from waveflow.threads import use_threads


@dataclass(frozen=True)
class Arguments:
    """Compare samplers of a posterior in 31 dimensions; a minute on one CPU core.

    Args:
        chains: Chains side by side.
        draws: Draws of each chain.
        warmup: Steps of each chain before them.
        prior_std: Standard deviation of the coefficients before the data are seen.
        layers: Couplings of the flow.
        hidden: Units of a conditioner's hidden layers.
        fit_steps: Optimizer steps that fit the flow, by reverse KL.
        out: Folder for the table and the picture.
        threads: CPU threads of PyTorch.
        seed: Of everything random.
    """

    chains: int = 32
    draws: int = 1000
    warmup: int = 300
    prior_std: float = 3.0
    layers: int = 6
    hidden: int = 64
    fit_steps: int = 1500
    out: str = "runs/logistic-regression"
    threads: int = 1
    seed: int = 0


def breast_cancer(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Standardised features behind a column of ones (N, 31) and labels (N,): of 80 % of the patients, of the rest."""
    features, labels = (torch.as_tensor(array, dtype=torch.float32) for array in load_breast_cancer(return_X_y=True))
    order = torch.randperm(len(labels), generator=generator)
    seen, kept = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    features = (features - features[seen].mean(0)) / features[seen].std(0)
    features = torch.cat([torch.ones(len(features), 1), features], 1)
    return features[seen], labels[seen], features[kept], labels[kept]


def laplace(features: Tensor, prior_std: float, labels: Tensor) -> MultivariateNormal:
    """The Gaussian at the posterior's mode with its curvature, by Newton's method in float64."""
    x, y = features.double(), labels.double()
    beta = x.new_zeros(x.shape[1])
    ridge = torch.eye(len(beta), dtype=x.dtype) / prior_std**2
    for _ in range(50):
        p = torch.sigmoid(x @ beta)
        precision = x.T @ (x * (p * (1 - p))[:, None]) + ridge
        beta = beta + torch.linalg.solve(precision, x.T @ (y - p) - ridge @ beta)
    return MultivariateNormal(beta, precision_matrix=precision)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    for name in ("chains", "draws", "layers", "hidden", "fit_steps"):
        least = {"chains": 2, "draws": 4}.get(name, 1)
        if getattr(args, name) < least:
            raise InputError(f"--{name.replace('_', '-')} expects at least {least}, got {getattr(args, name)}")
    if not args.prior_std > 0:
        raise InputError(f"--prior-std expects a positive number, got {args.prior_std}")
    check_seed(args.seed)
    use_threads(args.threads)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(args.seed)

    features, labels, new_features, new_labels = breast_cancer(generator)
    count = features.shape[1]
    signs = 2 * labels - 1

    # All samplers work in coordinates u in which the Laplace approximation is standard normal: beta = mode + L u.
    gaussian = laplace(features, args.prior_std, labels)
    mode, factor = gaussian.mean.float(), gaussian.scale_tril.float()

    def coefficients(u: Tensor) -> Tensor:
        return mode + u @ factor.T

    def log_posterior(u: Tensor) -> Tensor:
        beta = coefficients(u)
        likelihood = F.logsigmoid(signs * (beta @ features.T)).sum(1)
        return likelihood - 0.5 * (beta / args.prior_std).square().sum(1)

    # The flow learns from its own draws, without any sample of the posterior: that has one mode only.
    began = time.perf_counter()
    torch.manual_seed(args.seed)
    flow = CouplingFlow(
        features=count, layers=args.layers, hidden=(args.hidden, args.hidden), activation="silu", scale="tanh_exp"
    )
    losses = fit_by_reverse_kl(flow, log_posterior, args.fit_steps, 256, 3e-3, generator)
    print(f"flow fitted in {time.perf_counter() - began:.1f} s: {losses[0]:.2f} -> {losses[-1]:.2f} nats", flush=True)

    def held_out(u: Tensor) -> str:
        """Mean log-likelihood of the patients held out, of the posterior's mean probability."""
        beta = coefficients(u.flatten(0, 1))[:: max(1, u.shape[0] * u.shape[1] // 4000)]
        log_prob = F.logsigmoid((2 * new_labels - 1) * (beta @ new_features.T))
        return f"{(log_prob.logsumexp(0) - torch.tensor(len(beta)).log()).mean():.4f}"

    laplace_u = MultivariateNormal(torch.zeros(count), torch.eye(count))
    start = torch.randn(args.chains, count, generator=generator)
    compared = Comparison(start, args.draws, args.warmup, generator, {"held out, nats": held_out})

    # Local moves, their sizes tuned, and those of the walk shaped like the draws of a first walk.
    walk, there = tune(RandomWalk(log_posterior, 0.4), start, generator=generator)
    first = run_chains(walk, there, draws=1000, generator=generator)
    walk, _ = tune(RandomWalk.from_samples(log_posterior, first.pooled()), first.state.x, generator=generator)
    mala, _ = tune(MALA(log_posterior, 0.3), start, generator=generator)
    compared.chains("random walk", walk)
    compared.chains("MALA", mala)
    compared.chains("Laplace proposals", Independence(log_posterior, laplace_u))
    compared.importance("importance sampling by Laplace", log_posterior, laplace_u)

    jump = Independence(log_posterior, flow)
    from_flow = flow.sample((args.chains,), generator=generator).detach()
    compared.chains("flow proposals", jump, from_flow)
    compared.chains("random walk, flow proposals in turn", Cycle([walk, jump]))
    compared.importance("importance sampling by the flow", log_posterior, flow)

    latent = LatentTarget(log_posterior, flow)
    there = latent.to_latent(from_flow)
    latent_mala, _ = tune(MALA(latent, 0.5), there, steps=200, generator=generator)
    compared.chains("MALA in the flow's latent space", latent_mala, there, latent.to_data)

    compared.write(out)
    draw_traces(out / "traces.png", compared.rows, coordinate=0, name="u1")
    print(f"\n{compared.table()}\n\n{out / 'table.md'}, {out / 'traces.png'}")


if __name__ == "__main__":
    sys.exit(run_command(main, "logistic_regression.py"))
