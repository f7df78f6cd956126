"""The flags of recipes of vocoders: one word for one thing in all of them."""

from dataclasses import dataclass
from typing import Literal

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
