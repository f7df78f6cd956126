"""The flags of recipes of vocoders: one word for one thing in all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from waveflow.errors import InputError


@dataclass(frozen=True)
class SpeechArguments:
    """Train a vocoder.

    Args:
        data: LJ Speech folder, or any folder of audio files (default: the clips in samples/speech).
        download: Fetch LJ Speech (2.6 GB) into the folder of --data (default: data) and train on it.
        preset: Size of the model.
        steps: Optimizer steps in total.
        batch_size: Segments per step, on each process.
        segment: Samples of a training segment.
        learning_rate: Learning rate of Adam, after a linear warm-up.
        out: Folder of the run (default: runs/MODEL-PRESET, with a number where that holds one).
        device: auto takes a CUDA GPU where there is one.
        threads: CPU threads of PyTorch. More help large batches only, and stall where other programs want the cores.
        precision: bf16-mixed is for GPUs.
        seed: Equal seeds give equal runs, byte for byte on a CPU.
        resume: Continue the run in --out (default: the last one).
        validate_every: Steps between evaluations on held-out clips; 0 for one before and one after training only.
        validate_clips: How many of them are used; 0 for all.
        save_every: Steps between checkpoints; 0 for one at the end only.

    Raises:
        InputError: for a number out of its range.
    """

    data: str | None = None
    download: bool = False
    preset: str = "tiny"
    steps: int = 3000
    batch_size: int = 2
    segment: int = 8192
    learning_rate: float | None = None
    out: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    seed: int = 0
    resume: bool = False
    validate_every: int = 500
    validate_clips: int = 8
    save_every: int = 500

    def __post_init__(self):
        if self.validate_clips < 0:
            raise InputError(f"--validate-clips expects 0 or more, got {self.validate_clips}")


@dataclass(frozen=True)
class VocoderArguments(SpeechArguments):
    """Train a vocoder of one's own making.

    Args:
        fields: Fields of the preset to be replaced, as in --fields.whiten false; a wrong one lists them all.
    """

    fields: dict[str, Any] | None = None

    def training_of(self, presets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """How the preset is trained, with the learning rate of ``--learning-rate`` where that is given.

        Args:
            presets: fields of :class:`~waveflow.training.TrainerConfig` by preset.

        Raises:
            InputError: for a preset that is not among them.
        """
        if self.preset not in presets:
            raise InputError(f"--preset expects one of {', '.join(presets)}, got {self.preset!r}")
        given = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
        return {**presets[self.preset], **given}
