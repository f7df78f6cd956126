"""Samplers side by side: the same chains, timed, in one table."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from waveflow.atomic import write_whole
from waveflow.sampling import Kernel, Proposal, WeightedSamples, importance_sample, run_chains


@dataclass(frozen=True)
class Row:
    """One sampler: its draws (chains, draws, D), and what they were worth."""

    method: str
    acceptance: float | None
    r_hat: float | None
    ess: float
    seconds: float
    figures: tuple[str, ...]
    samples: Tensor


@dataclass
class Comparison:
    """Runs samplers from one start and keeps a row for each.

    Args:
        start: (chains, D), in the target's coordinates.
        draws: of each chain.
        warmup: steps before them; their time counts too.
        generator: of all samplers, one after the other.
        figures: names and functions of a sampler's samples (chains, draws, D) for further columns.
    """

    start: Tensor
    draws: int
    warmup: int
    generator: torch.Generator
    figures: dict[str, Callable[[Tensor], str]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def chains(self, method: str, kernel: Kernel, start: Tensor | None = None, to_data: Callable | None = None) -> None:
        """Run a kernel; its ESS is the worst coordinate's. ``to_data`` maps (N, D) to the target's coordinates."""
        began = time.perf_counter()
        start = self.start if start is None else start
        chains = run_chains(kernel, start, self.draws, self.warmup, generator=self.generator)
        samples = chains.samples
        if to_data is not None:
            samples = to_data(chains.pooled()).unflatten(0, samples.shape[:2])
        seconds = time.perf_counter() - began
        moved = type(chains)(samples, chains.log_prob, chains.acceptance, chains.state)
        ess, r_hat = moved.effective_sample_size().min().item(), moved.r_hat().max().item()
        self._add(method, chains.acceptance.mean().item(), r_hat, ess, seconds, samples)

    def importance(self, method: str, log_target: Callable, proposal: Proposal) -> WeightedSamples:
        """As many weighted draws as the chains make in all; its ESS is that of the weights."""
        count, began = self.draws * len(self.start), time.perf_counter()
        weighted = importance_sample(log_target, proposal, count, self.generator)
        samples = weighted.resample(count, self.generator).unflatten(0, (len(self.start), self.draws))
        seconds = time.perf_counter() - began
        self._add(method, None, None, weighted.effective_sample_size(), seconds, samples)
        return weighted

    def table(self) -> str:
        """In Markdown."""
        head = ["method", "accepted", "R-hat", "ESS", "seconds", "ESS / s", *self.figures]
        lines = [head, ["---"] * len(head)]
        for row in self.rows:
            accepted, r_hat = ("" if v is None else f"{v:.{n}f}" for v, n in ((row.acceptance, 2), (row.r_hat, 3)))
            worth = (f"{row.ess:,.0f}", f"{row.seconds:.2f}", f"{row.ess / row.seconds:,.0f}")
            lines.append([row.method, accepted, r_hat, *worth, *row.figures])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def write(self, folder: Path) -> None:
        write_whole(folder / "table.md", (self.table() + "\n").encode())

    def _add(self, method: str, acceptance: float | None, r_hat: float | None, ess: float, seconds: float, samples):
        figures = tuple(figure(samples) for figure in self.figures.values())
        self.rows.append(Row(method, acceptance, r_hat, ess, seconds, figures, samples))
        print(f"{method}: ESS {ess:,.0f} in {seconds:.2f} s", flush=True)
