"""What a teacher makes of noise: the copies that a student of sound is to make of the same noise."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from waveflow.distillation.teacher import flow_of
from waveflow.errors import InputError
from waveflow.models import ParallelWaveNet, WaveNet


class TeacherCopies:
    """Adds to batches some noise, and the teacher's copies of their mels from this noise.

    Teacher and student turn noise into sound by increasing triangular maps, of which a density has only one (Knothe,
    Rosenblatt): from the same noise a perfect student makes the very copies of its teacher. So their spectra, of which
    :class:`~waveflow.distillation.StudentObjective` takes the distance, have something to say on each draw, and agree
    with the divergence about where to go; a recording is one of many possible copies.

    A teacher draws slowly. Each batch is drawn when it comes first, and kept; its noise depends on the seed and its
    place alone, so a resumed run sees the same.

    Args:
        teacher: a :class:`~waveflow.models.WaveNet` with a continuous head.
        student: of the same noise: both Gaussian or both logistic.
        repeat: steps after which the batches come again, as from ``Steps(batches, repeat)``; 0 for never, which draws
            at every step and keeps nothing.
        seed: of the noise.
        rank: this process.

    Raises:
        InputError: for a teacher and a student of different noise, or a negative ``repeat``.
    """

    def __init__(self, teacher: WaveNet, student: ParallelWaveNet, repeat: int = 0, seed: int = 0, rank: int = 0):
        if repeat < 0:
            raise InputError(f"copies can be repeated after 0 steps or more, got {repeat}")
        if not shares_noise(teacher, student):
            bases = [type(flow_of(model).base).__name__ for model in (teacher, student)]
            raise InputError(
                "teacher and student must make their copies of the same noise, but the teacher's is "
                f"{bases[0]}, the student's {bases[1]}"
            )
        self.teacher, self.repeat, self.seed, self.rank = teacher, repeat, seed, rank
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with ``noise`` (B, 1, T) and ``copy`` (B, T).

        Args:
            batch: ``waveform`` (B, T), of which the length counts; ``mel`` (B, n_mels, frames), as many as T takes;
                ``step``.

        Raises:
            FloatingPointError: if a copy is not finite.
        """
        place = batch["step"] % self.repeat if self.repeat else batch["step"]
        found = self._kept.get(place) or self._draw(batch["mel"], batch["waveform"].shape[1], place)
        if self.repeat:
            self._kept[place] = found
        return {**batch, "noise": found[0], "copy": found[1]}

    def _draw(self, mel: Tensor, samples: int, place: int) -> tuple[Tensor, Tensor]:
        seed = int(np.random.SeedSequence((self.seed, self.rank, place)).generate_state(1, np.uint64)[0])
        generator = torch.Generator(mel.device).manual_seed(seed)
        noise = self.teacher.draw_latent(mel.shape[2], len(mel), 1.0, generator)
        copy = self.teacher.vocode(mel, z=noise, match=0)
        return noise[..., :samples], copy[:, :samples].float()


def shares_noise(teacher: WaveNet, student: ParallelWaveNet) -> bool:
    """Whether both turn noise of the same distribution into sound."""
    return type(flow_of(teacher).base) is type(flow_of(student).base)
