"""Monte Carlo: draws by inversion, importance sampling and Markov chains, with or without a flow."""

from waveflow.sampling.box_muller import box_muller, sample_normal
from waveflow.sampling.chains import Chains, run_chains, tune
from waveflow.sampling.density import LogDensity
from waveflow.sampling.diagnostics import effective_sample_size, r_hat
from waveflow.sampling.fitting import fit_by_reverse_kl, fit_to_samples
from waveflow.sampling.gibbs import Conditional, Gibbs, finite_conditional
from waveflow.sampling.importance import Estimate, WeightedSamples, importance_sample
from waveflow.sampling.inverse_cdf import quantile_of, sample_categorical, sample_inverse_cdf
from waveflow.sampling.kernel import Cycle, Kernel, State
from waveflow.sampling.langevin import (
    MALA,
    Langevin,
    StochasticGradientLangevin,
    minibatch_gradient,
    polynomial_decay,
)
from waveflow.sampling.latent import LatentTarget
from waveflow.sampling.metropolis import Independence, MetropolisHastings, RandomWalk
from waveflow.sampling.proposal import Proposal

__all__ = [
    "MALA",
    "Chains",
    "Conditional",
    "Cycle",
    "Estimate",
    "Gibbs",
    "Independence",
    "Kernel",
    "Langevin",
    "LatentTarget",
    "LogDensity",
    "MetropolisHastings",
    "Proposal",
    "RandomWalk",
    "State",
    "StochasticGradientLangevin",
    "WeightedSamples",
    "box_muller",
    "effective_sample_size",
    "finite_conditional",
    "fit_by_reverse_kl",
    "fit_to_samples",
    "importance_sample",
    "minibatch_gradient",
    "polynomial_decay",
    "quantile_of",
    "r_hat",
    "run_chains",
    "sample_categorical",
    "sample_inverse_cdf",
    "sample_normal",
    "tune",
]
