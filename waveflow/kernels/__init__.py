"""Recursions that need care to be fast, each with a plain PyTorch twin that it is tested against."""

from waveflow.kernels.lattice import lattice_analysis, lattice_synthesis
from waveflow.kernels.levinson import levinson_durbin

__all__ = ["lattice_analysis", "lattice_synthesis", "levinson_durbin"]
