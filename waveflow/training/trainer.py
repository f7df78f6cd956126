"""The training loop: devices, averaging, logging, checkpoints. Model, data and objective are the caller's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from waveflow.errors import InputError
from waveflow.training.config import TrainerConfig
from waveflow.training.launch import launch
from waveflow.training.prefetch import BatchSource
from waveflow.training.randomness import seed_generators
from waveflow.training.run import Run
from waveflow.training.run_folder import RunFolder
from waveflow.training.run_log import RunLog
from waveflow.training.state import TrainingState

T = TypeVar("T")


class Trainer:
    """Trains any module that has ``save_pretrained(folder)``, on Lightning Fabric.

    Creating it joins the processes that torchrun started, prepares the folder of the run and seeds all generators:
    build the model afterwards, and it too follows from ``config.seed``.

    A run is a function of its configuration. Batches depend on the step alone, random numbers that the objective draws
    on (seed, rank, step), the learning rate not on the number of steps. On a CPU, therefore, 10 steps and after
    ``resume`` 10 more end with the very bytes of 20; and W processes with batches of b follow one process with
    batches of W b up to rounding.

    Args:
        config: the settings of the run.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        device: where this process trains.
        folder: the :class:`~waveflow.training.RunFolder`.

    Raises:
        InputError: if the device is not there; if the folder cannot be written, holds a run and ``resume`` is not set,
            or holds none and it is.

    Example::

        trainer = Trainer(TrainerConfig(out="runs/first", steps=400))
        model = MAF(features=2)
        batches = Batches(points, batch_size=64, seed=0)
        trainer.fit(model, lambda model, batch: {"loss": -model(batch["x"]).mean()}, batches)
    """

    def __init__(self, config: TrainerConfig):
        self.config = config
        self.fabric = launch(config)
        self.rank: int = self.fabric.global_rank
        self.world_size: int = self.fabric.world_size
        self.device: torch.device = self.fabric.device
        self.folder = RunFolder(config.out)
        self.on_first(lambda: self.folder.prepare(config.resume))
        seed_generators(config.seed)

    def fit(
        self,
        model: nn.Module,
        objective: Callable[[nn.Module, dict[str, Any]], Mapping[str, Tensor]],
        batches: BatchSource,
        *,
        validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
        sample: Callable[[nn.Module, RunLog], None] | None = None,
        initialize: Callable[[nn.Module, dict[str, Any]], None] | None = None,
        finish: Callable[[nn.Module], None] | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        show: Sequence[str] = ("loss",),
    ) -> TrainingState:
        """Train until ``config.steps``, and leave the averaged weights in the run's folder.

        The model itself keeps the weights of the last step; ``from_pretrained(config.out)`` gives the averaged ones.

        Args:
            model: trained in place, and moved to the trainer's device.
            objective: gives the scalar ``loss`` to be minimised, a mean over the batch, and further scalars to log.
                It calls the model it is given as a function (``model(x, context)``, the module's ``forward``), since
                that is what DDP and autocast wrap.
            batches: ``batches.batch(step)`` is the batch of a step; with several processes each trains on its own
                ``batches.shard(rank, world_size)``.
            validate: figures of the averaged model, which it gets in eval mode, in full precision and without
                gradients; run before the first step, every ``validate_every`` steps and at the end, by the first
                process only, always from the same state of the generators.
            sample: writes sounds and pictures to the log; run after each validation but the one before training.
            initialize: run once on the first batch of a new run, such as for the statistics of ActNorm. It gets the
                bare module, on every process.
            finish: run when all steps are done and saved, by the first process only; it gets the averaged model as
                ``validate`` does, and may change what ``save_pretrained`` writes beside the weights, such as a default
                that is chosen by synthesis; the model is then written once more.
            optimizer: from parameters to optimizer; Adam by default. Its learning rates are set at each step.
            show: names of the objective's figures that stand beside the progress bar.

        Returns:
            The state at the end; ``before`` and ``after`` hold the first and the last validation.

        Raises:
            Interrupted: on SIGINT or SIGTERM, after saving; a ``SystemExit`` with the code 130 or 143.
            InputError: if the checkpoint does not fit, the disk is too small, or too many steps in a row were
                not finite, or beyond a million times the first loss (or 1, if that is more).
            OSError: if a save failed; the save before is intact.
        """
        return Run(self, model, objective, batches, validate, sample, initialize, finish, optimizer, show).loop()

    def on_first(self, call: Callable[[], T]) -> T:
        """``call()`` made by the first process alone, its result or its error given to all; the others wait."""
        result, failure = None, None
        if self.rank == 0:
            try:
                result = call()
            except (InputError, OSError) as error:
                failure = error
        result, failure = self.fabric.broadcast((result, failure))
        if failure is not None:
            raise failure
        return result
