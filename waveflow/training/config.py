"""What a training run is told."""

import os
from dataclasses import dataclass
from typing import Literal, get_args

from waveflow.errors import InputError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "bf16-mixed", "64-true"]


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of a :class:`~waveflow.training.Trainer`; each is a flag of the recipes.

    Args:
        out: Folder of the run: model, checkpoints, logs and samples.
        steps: Optimizer steps in total, those of a resumed run included.
        batch_size: Items per step on each process; under torchrun the whole batch is this times the processes.
        learning_rate: Peak learning rate, of every parameter group.
        betas: Decay rates of Adam's two moment estimates.
        warmup_steps: Steps of linear warm-up from zero; 0 for none.
        halve_at: Steps from which on the learning rate is halved, each time once more.
        decay_after: Step after which the learning rate falls as (decay_after / step) ** decay_power; 0 for never.
        decay_power: Exponent of that decay; 0.5 is the inverse square root.
        clip_norm: Gradients are scaled down to this L2 norm; null for no clipping.
        ema_decay: Decay per step of the averaged weights, the ones that are validated and exported; 0 for no averaging.
        device: Where to train; auto takes a CUDA GPU where there is one.
        precision: 32-true, bf16-mixed (forward pass under bfloat16 autocast) or 64-true.
        seed: Seed of the initial weights, the data order and everything else that is random; 0 ... 2^63 - 1.
        resume: Continue the run in out from its last checkpoint.
        save_every: Steps between checkpoints; 0 for one at the end only.
        validate_every: Steps between validations; 0 for one before and one after training only.
        log_every: Steps over which the logged training figures are averaged.
        max_bad_steps: The run stops when this many steps in a row had a non-finite loss or gradient, or a loss a
            million times the first one.
        prefetch: Batches that are prepared ahead by background threads; 0 for none.

    Raises:
        InputError: if a value is out of its range.
    """

    out: str | os.PathLike
    steps: int = 1000
    batch_size: int = 4
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 0
    halve_at: tuple[int, ...] = ()
    decay_after: int = 0
    decay_power: float = 0.5
    clip_norm: float | None = None
    ema_decay: float = 0.999
    device: Device = "auto"
    precision: Precision = "32-true"
    seed: int = 0
    resume: bool = False
    save_every: int = 500
    validate_every: int = 500
    log_every: int = 10
    max_bad_steps: int = 20
    prefetch: int = 2

    def __post_init__(self):
        for name in ("steps", "batch_size", "log_every", "max_bad_steps"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("warmup_steps", "decay_after", "save_every", "validate_every", "prefetch"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        self._require("seed", 0 <= self.seed < 2**63, "0 ... 2^63 - 1")
        self._require("learning_rate", self.learning_rate > 0, "positive")
        self._require("clip_norm", self.clip_norm is None or self.clip_norm > 0, "positive, or null for no clipping")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")
        self._require("betas", all(0 <= beta < 1 for beta in self.betas), "in [0, 1)")
        self._require("decay_power", self.decay_power >= 0, "0 or more")
        self._require("device", self.device in get_args(Device), f"one of {', '.join(get_args(Device))}")
        self._require("precision", self.precision in get_args(Precision), f"one of {', '.join(get_args(Precision))}")

    def _require(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise InputError(f"{name} must be {expected}, got {getattr(self, name)!r}")
