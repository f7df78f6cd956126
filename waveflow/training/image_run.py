"""What all recipes of images share: data and model by the flags, figures and grids along training, a final report."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from waveflow.data import Batches
from waveflow.errors import InputError
from waveflow.evaluation.image_likelihood import image_likelihood_of
from waveflow.images import image_grid, save_grid
from waveflow.models import ImageFlow, ImageModel
from waveflow.threads import use_threads
from waveflow.training.best_model import BestModel
from waveflow.training.config import TrainerConfig
from waveflow.training.data_record import DataRecord, describe_data
from waveflow.training.image_arguments import ImageArguments, ImageFlowArguments
from waveflow.training.image_data import read_images, some
from waveflow.training.image_grids import draw, grid_layout
from waveflow.training.image_report import report
from waveflow.training.minutes import Minutes
from waveflow.training.run_log import RunLog
from waveflow.training.state import TrainingState
from waveflow.training.trainer import Trainer

_FROM_THE_DATA = ("channels", "height", "width", "values", "classes")
_SHARED = (
    "steps",
    "batch_size",
    "learning_rate",
    "device",
    "precision",
    "seed",
    "resume",
    "validate_every",
    "save_every",
)
_FIRST_BATCH = 256  # images for the statistics that scales are set from


class ImageRun:
    """One run of an image recipe. What the flags get wrong is said before anything is made.

    Args:
        args: the flags.
        model: class of the model.
        preset: name of its preset, from which the images replace size and number of values.
        out: folder of the run.
        fields: further fields of the preset to be replaced; those of ``args`` come last.
        settings: fields of :class:`~waveflow.training.TrainerConfig` that are no flags.

    Attributes:
        images: the :class:`~waveflow.data.ImageSet`.
        trainer: the :class:`~waveflow.training.Trainer`.
        model: what is trained.

    Raises:
        InputError: for flags that are out of range, or do not fit the images or each other.
        OSError: if images cannot be read.
    """

    def __init__(
        self,
        args: ImageArguments,
        model: type[ImageModel],
        preset: str,
        out: str | os.PathLike,
        fields: Mapping[str, Any] | None = None,
        **settings: Any,
    ):
        self.args = args
        config = TrainerConfig(
            **{
                "out": out,
                "warmup_steps": 50,
                "decay_after": 2000,
                "clip_norm": 50.0,
                **settings,
                **{name: getattr(args, name) for name in _SHARED},
            }
        )
        if preset not in model.PRESETS:
            raise InputError(f"--preset expects one of {', '.join(model.PRESETS)}, got {preset!r}")
        use_threads(args.threads)
        self.images = read_images(args)
        fields = dict(model.PRESETS[preset]) | dict(fields or {}) | self._fields()
        model.make_config(**fields)
        self.trainer = Trainer(config)
        self.model = model(**fields)

        self._validation = some(self.images.validation, args.validate_images)
        measured_on = {
            "data": self.images.name,
            "values": self.images.values,
            "images": len(self._validation),
            "seed": args.seed,
        }
        self._best = BestModel(self.trainer.folder.path / "best", measured_on)
        self._figure = math.inf
        self._minutes = Minutes(self.trainer.folder.logs / "minutes.json", self.trainer.device)
        if self.trainer.rank == 0:
            self._say_data()

    def fit(
        self,
        objective: Callable[[nn.Module, dict[str, Any]], Mapping[str, Tensor]],
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
    ) -> TrainingState:
        """Train by an objective, as :meth:`waveflow.training.Trainer.fit` does; then test, draw and write down.

        What is tested is the averaged model of the best validation, which ``best`` in the folder keeps. A new flow is
        first shown a bigger batch, from whose statistics layers that have them set their scales.

        Raises:
            what ``Trainer.fit`` raises.
        """
        batches = Batches(self.images.train, self.args.batch_size, self.args.seed)
        record = DataRecord(self.trainer.folder.logs / "data.json", describe_data(self.args, self.images))
        if self.args.resume:
            self.trainer.on_first(lambda: self._say_differences(record))
        self._minutes.start()
        try:
            state = self.trainer.fit(
                self.model,
                self._noted(objective, record),
                batches,
                validate=self._validate,
                sample=self._sample,
                initialize=self._initialize if hasattr(self.model, "initialize") else None,
                optimizer=optimizer,
                show=["bits_per_dim"],
            )
        finally:
            self._minutes.stop()
            if self.trainer.rank == 0:
                self._minutes.save()
        if self.trainer.rank == 0:
            device = self.trainer.device
            report(self.trainer.folder, self._best, self.images, self._minutes, self.args, device, state.step)
        return state

    def _say_differences(self, record: DataRecord) -> None:
        if different := record.differences():
            print(f"data that differ from those before: {different}", flush=True)

    def _noted(self, objective: Callable, record: DataRecord) -> Callable:
        """The objective, which at its first step writes the record: a resume that is refused leaves it as it was."""
        saved = False

        def noted(model: nn.Module, batch: dict[str, Any]) -> Mapping[str, Tensor]:
            nonlocal saved
            if not saved:
                self.trainer.on_first(record.save)
                saved = True
            return objective(model, batch)

        return noted

    def _initialize(self, model: ImageFlow, batch: Mapping[str, Any]) -> None:
        size = max(_FIRST_BATCH, self.args.batch_size)
        first = Batches(self.images.train, size, self.args.seed).batch(0)  # the same on every process
        model.initialize(*(first[name].to(self.trainer.device) for name in ("images", "label") if name in first))

    def _validate(self, model: ImageModel) -> dict[str, float]:
        try:
            with self._minutes.paused():
                found = image_likelihood_of(model, self._validation, self.args.batch_size, self.args.seed)
        except FloatingPointError:  # no reason to lose the run
            self._figure = math.inf
            return {"bits_per_dim": math.inf}
        self._figure = found.bits_per_dim
        figures = {"bits_per_dim": found.bits_per_dim}
        return figures | {"negative_log_likelihood": -found.nats} if self.images.values == 2 else figures

    def _sample(self, model: ImageModel, log: RunLog) -> None:
        self._minutes.mark(log.step)
        with self._minutes.paused():
            self._minutes.save()
            self._best.offer(log.step, self._figure, model.save_pretrained)
            try:
                images = draw(model, self.args.samples, self.args.temperature, self.args.seed)
            except FloatingPointError as error:  # no reason to lose the run
                print(f"step {log.step}: no samples, {error}", flush=True)
                return
            layout = grid_layout(model)
            save_grid(log.samples / f"step-{log.step:08d}.png", images, **layout)
            log.image("samples", image_grid(images, **layout))

    def _fields(self) -> dict[str, Any]:
        given = dict(self.args.fields or {})
        if own := sorted(set(given) & set(_FROM_THE_DATA)):
            raise InputError(
                f"--fields expects none of {', '.join(_FROM_THE_DATA)}, which follow from the images, got {own[0]}"
            )
        channels, height, width = self.images.shape
        flow = {}
        if isinstance(self.args, ImageFlowArguments):
            flow = {"memory": self.args.memory, "dequantisation": self.args.dequantisation}
        fixed = (channels, height, width, self.images.values, len(self.images.classes))
        return flow | given | dict(zip(_FROM_THE_DATA, fixed, strict=True))

    def _say_data(self) -> None:
        images = self.images
        sizes = (
            f"{len(images.train):,} to train on, {len(images.validation):,} to validate, {len(images.test):,} to test"
        )
        shape = "x".join(map(str, images.shape))
        print(f"data: {images.name}, {shape}, {images.values} values: {sizes}", flush=True)
        if images.note:
            print(f"note: {images.note}", flush=True)
