"""One run of the training loop."""

import dataclasses
import logging
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from waveflow.errors import InputError
from waveflow.training.ema import EMA
from waveflow.training.interrupt import Interrupted, InterruptWatch
from waveflow.training.prefetch import BatchSource, prefetched
from waveflow.training.progress import Progress
from waveflow.training.randomness import seed_generators
from waveflow.training.resume import describe_model, list_differences, require_same_model, require_same_optimizer
from waveflow.training.run_folder import KEPT_CHECKPOINTS
from waveflow.training.run_log import RunLog
from waveflow.training.schedule import learning_rate_factor
from waveflow.training.state import TrainingState

if TYPE_CHECKING:
    from waveflow.training.trainer import Trainer

logger = logging.getLogger("waveflow")

_EXPLODED = 1e6  # times the first loss, or 1, beyond which a finite one says that the run diverges
_QUIET = 100  # steps from one such warning to the next

# Purposes of random numbers, which set their streams apart.
_TRAIN, _VALIDATE, _SAMPLE, _INITIALIZE = range(1, 5)

# Settings that may change at --resume without a word: they do not change what is learnt.
_INDIFFERENT = {
    "out",
    "steps",
    "device",
    "resume",
    "save_every",
    "validate_every",
    "log_every",
    "max_bad_steps",
    "prefetch",
}


class Run:
    """What happens between the call of :meth:`Trainer.fit` and its return; see there for the arguments."""

    def __init__(
        self, trainer: "Trainer", model, objective, batches, validate, sample, initialize, finish, optimizer, show
    ):
        self.trainer, self.config, self.fabric = trainer, trainer.config, trainer.fabric
        self.model, self.objective, self.batches = model, objective, self._own_share(batches)
        self.validate, self.sample, self.finish, self.show = validate, sample, finish, show
        self.state = TrainingState()
        self.warned = -_QUIET
        self._check_arguments()

        self.dtype = torch.float64 if self.config.precision == "64-true" else None
        self.description = describe_model(model)  # before ``finish`` changes defaults of the model
        model.to(trainer.device, self.dtype).train()
        self.optimizer = (optimizer or self._adam)(model.parameters())
        checkpoint = self._read_checkpoint() if self.config.resume else None
        if checkpoint is None and initialize is not None:
            seed_generators(self.config.seed, _INITIALIZE, trainer.rank)
            with torch.no_grad():
                initialize(model, self._to_device(self._batch(0)))
        # DDP gives all processes the first one's weights, so the average comes after it.
        self.wrapped = self.fabric.setup_module(model)
        self.ema = EMA(model, self.config.ema_decay)
        if checkpoint is not None:
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            self.ema.load_state_dict(checkpoint["ema"])
            self.state = TrainingState(**checkpoint["state"])
        self.changed = list_differences(checkpoint["settings"], self._settings()) if checkpoint else ""
        trainer.on_first(lambda: self._open_log(checkpoint))

    def loop(self) -> TrainingState:
        """Steps, validations and saves, until the steps are done or a signal came."""
        config, state = self.config, self.state
        self.progress = Progress(config.steps, state.step, quiet=self.trainer.rank > 0)
        self.progress.say(self._headline())
        source = prefetched(self._batch, state.step, config.steps, config.prefetch)
        self.watch = InterruptWatch("" if self.trainer.rank else "stopping after this step ...")
        saved, stopping = state.step if config.resume else -1, False
        self.clock = time.perf_counter()
        try:
            with self.watch:
                while True:
                    if not stopping and state.validated != state.step and self._is_due(config.validate_every):
                        stopping = not self._evaluate()
                    done = stopping or state.step >= config.steps
                    # Weights that diverge are not saved over good ones, unless they are all there will be.
                    due = state.step > 0 and self._is_due(config.save_every) and not state.exploded
                    if saved != state.step and (done or due):
                        self.trainer.on_first(self._save)
                        if self.finish is not None and state.step >= config.steps:
                            self.trainer.on_first(self._finish)
                        saved = state.step
                    if done:
                        break
                    stopping = self._step(next(source))
                if not stopping and state.validated != state.step:
                    # After the save: to a run that is prolonged from there, this validation never happened.
                    stopping = not self._evaluate()
        finally:
            source.close()
            self.progress.close()
            if self.trainer.rank == 0:
                # All figures are flushed when they are logged; an error here would only hide the one that led here.
                with suppress(OSError):
                    self.log.close()
        if stopping or self.watch.signum:
            raise self._interruption()
        return state

    def _step(self, batch: Mapping[str, Any]) -> bool:
        """One optimizer step. True if a process was asked to stop."""
        config, state = self.config, self.state
        seed_generators(config.seed, _TRAIN, self.trainer.rank, state.step)
        self.optimizer.zero_grad(set_to_none=True)
        figures = dict(self.objective(self.wrapped, self._to_device(batch)))
        self.fabric.backward(figures["loss"])
        figures["gradient_norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm or math.inf)
        figures, stopping = self._reduce(figures)

        # Judged by the means over all processes: all skip the step, or none.
        finite = math.isfinite(figures["loss"]) and math.isfinite(figures["gradient_norm"])
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate()
            self.optimizer.step()
            self.ema.update()
            state.add(figures)
        else:
            state.skipped += 1
        self._judge(figures["loss"], finite)
        means = state.means()
        if (state.step + 1) % config.log_every == 0:
            self._log_training(means)
        state.step += 1
        self.progress.advance({name: means[name] for name in self.show if name in means})
        if state.bad_in_row >= config.max_bad_steps:
            trouble = "a non-finite loss or gradient"
            if state.exploded:
                trouble = f"a loss beyond {_EXPLODED:,.0f} times the first, {state.first_loss:.4g}"
            raise InputError(
                f"{state.bad_in_row} steps in a row had {trouble} (step {state.step}: loss {figures['loss']:.4g}, "
                f"gradient norm {figures['gradient_norm']:.4g}); what was last saved in {config.out} is intact: "
                "try a lower learning rate or a smaller clip norm"
            )
        return stopping

    def _judge(self, loss: float, finite: bool) -> None:
        """Count a step that was skipped, or taken though its loss was beyond all measure: it may find back, or not."""
        state = self.state
        if finite and state.first_loss is None:
            state.first_loss = loss
        exploded = finite and abs(loss) > _EXPLODED * max(1.0, abs(state.first_loss))
        if exploded and state.step >= self.warned + _QUIET and self.trainer.rank == 0:
            self.warned = state.step
            logger.warning(
                "%s diverges: its loss is %.4g at step %d, and was %.4g at first; %d such steps in a row end the run",
                type(self.model).__name__,
                loss,
                state.step + 1,
                state.first_loss,
                self.config.max_bad_steps,
            )
        state.exploded = exploded
        state.bad_in_row = state.bad_in_row + 1 if exploded or not finite else 0

    def _reduce(self, figures: dict[str, Tensor]) -> tuple[dict[str, float], bool]:
        """Means over all processes, and whether any of them was sent a signal: one collective call, one copy to CPU."""
        values = [torch.as_tensor(value, device=self.trainer.device).detach() for value in figures.values()]
        for name, value in zip(figures, values, strict=True):
            if value.numel() != 1:
                raise ValueError(f"the objective must give scalars, but {name} has shape {tuple(value.shape)}")
        values.append(torch.tensor(float(self.watch.signum > 0), device=self.trainer.device))
        packed = torch.stack([value.reshape(()).double() for value in values])
        *means, stopping = self.fabric.all_reduce(packed, reduce_op="mean").tolist()
        return dict(zip(figures, means, strict=True)), stopping > 0

    def _evaluate(self) -> bool:
        """Validate and sample with the averaged weights. False if a signal cut it short: then it never happened."""
        if self.validate is None and self.sample is None:
            return True
        figures = self.trainer.on_first(self._evaluated)
        self.clock = time.perf_counter()
        if figures is None:
            return False
        state = self.state
        state.before, state.after = state.before or figures, figures
        state.validated = state.step
        if self.trainer.rank == 0:
            self.log.step = state.step
            self.log.scalars({f"validate/{name}": value for name, value in figures.items()})
        if figures:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            self.progress.say(f"step {state.step}: validation: {shown}")
        return True

    def _evaluated(self) -> dict[str, float] | None:
        """The figures of ``validate``, or None where a signal cut the work short."""
        with self._averaged():
            return self.watch.abandonable(self._validate_and_sample)

    def _finish(self) -> None:
        """After the save, which an error in ``finish`` must not cost, the model once more."""
        with self._averaged():
            self.finish(self.model)
        self.trainer.folder.export(self._export)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within it the model has the averaged weights, is in eval mode and takes no gradients."""
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            with torch.no_grad(), self.ema.applied():
                yield
        finally:
            for module, training in modes.items():
                module.training = training

    def _validate_and_sample(self) -> dict[str, float]:
        figures: Mapping[str, float] = {}
        self.log.step = self.state.step
        if self.validate is not None:
            seed_generators(self.config.seed, _VALIDATE)
            figures = self.validate(self.model)
        if self.sample is not None and self.state.step > 0:
            seed_generators(self.config.seed, _SAMPLE)
            self.sample(self.model, self.log)
        return {name: float(value) for name, value in figures.items()}

    def _log_training(self, means: dict[str, float]) -> None:
        if self.trainer.rank == 0:
            self.log.step = self.state.step + 1
            figures = means | {"learning_rate": self._learning_rate(), "skipped_steps": self.state.skipped}
            self.log.scalars({f"train/{name}": value for name, value in figures.items()})
            seconds = time.perf_counter() - self.clock
            self.log.timing({"speed/steps_per_second": self.config.log_every / seconds})
        self.clock = time.perf_counter()
        self.state.clear()

    def _save(self) -> None:
        self.log.sync()
        checkpoint = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "state": dataclasses.asdict(self.state),
            "log_size": self.log.size,
            "description": self.description,
            "optimizer_name": type(self.optimizer).__name__,
            "settings": self._settings(),
        }
        self.trainer.folder.save(self.state.step, checkpoint, self._export)

    def _export(self, folder: Path) -> None:
        with self.ema.applied():
            self.model.save_pretrained(folder)

    def _read_checkpoint(self) -> dict[str, Any]:
        path, checkpoint = self.trainer.folder.load()
        require_same_model(checkpoint["description"], checkpoint["model"], self.model, str(path))
        require_same_optimizer(checkpoint["optimizer_name"], checkpoint["optimizer"], self.optimizer, str(path))
        self.model.load_state_dict(checkpoint["model"])
        return checkpoint

    def _open_log(self, checkpoint: dict[str, Any] | None) -> None:
        size = sum(t.numel() * t.element_size() for t in self.model.state_dict().values())
        # Model, average and two moments in each checkpoint; old and new stand side by side while they are exchanged.
        checkpoints = 1 if checkpoint else KEPT_CHECKPOINTS + 1
        self.trainer.folder.require_space(checkpoints * 4 * size + 2 * size)
        self.log = RunLog(self.trainer.folder, self.state.step, checkpoint["log_size"] if checkpoint else 0)

    def _headline(self) -> str:
        if self.state.step >= self.config.steps:
            return f"nothing left to train: the run in {self.config.out} has {self.state.step} steps already"
        count = sum(p.numel() for p in self.model.parameters())
        processes = f"{self.trainer.world_size} x " if self.trainer.world_size > 1 else ""
        text = (
            f"training {count:,} parameters on {self.trainer.device.type} ({self.config.precision}), batches of "
            f"{processes}{self.config.batch_size}, steps {self.state.step} to {self.config.steps}, in {self.config.out}"
        )
        return f"{text}\nsettings that differ from those before: {self.changed}" if self.changed else text

    def _interruption(self) -> Interrupted:
        interruption = Interrupted(self.watch.signum or signal.SIGTERM)
        self.progress.say(
            f"stopped by {interruption.signal.name} after step {self.state.step} of {self.config.steps}; all of it is "
            f"saved in {self.config.out}, continue with --resume"
        )
        return interruption

    def _batch(self, step: int) -> dict[str, Any]:
        """A batch in main memory; called by background threads."""
        batch = self.batches.batch(step)
        if self.trainer.device.type != "cuda":
            return batch
        return {name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in batch.items()}

    def _to_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        def move(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return value.to(self.trainer.device, self.dtype if value.is_floating_point() else None, non_blocking=True)

        return {name: move(value) for name, value in batch.items()}

    def _adam(self, parameters) -> torch.optim.Optimizer:
        fused = self.trainer.device.type == "cuda"
        return torch.optim.Adam(parameters, betas=self.config.betas, fused=fused)

    def _learning_rate(self) -> float:
        c = self.config
        factor = learning_rate_factor(self.state.step, c.warmup_steps, c.halve_at, c.decay_after, c.decay_power)
        return c.learning_rate * factor

    def _is_due(self, every: int) -> bool:
        return self.state.step == 0 or (every > 0 and self.state.step % every == 0)

    def _settings(self) -> dict[str, Any]:
        """What of the configuration a resumed run should share with the one before."""
        settings = {k: v for k, v in dataclasses.asdict(self.config).items() if k not in _INDIFFERENT}
        return settings | {"batch_size": self.config.batch_size * self.trainer.world_size}

    def _own_share(self, batches: BatchSource) -> BatchSource:
        if self.trainer.world_size == 1:
            return batches
        if not hasattr(batches, "shard"):
            raise TypeError(
                f"{type(batches).__name__} needs a method shard(rank, world_size) to be trained on in parallel"
            )
        return batches.shard(self.trainer.rank, self.trainer.world_size)

    def _check_arguments(self) -> None:
        if not callable(getattr(self.model, "save_pretrained", None)):
            raise TypeError(f"{type(self.model).__name__} has no save_pretrained(folder); the trainer exports by it")
