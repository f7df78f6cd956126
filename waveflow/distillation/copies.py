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

    A teacher draws slowly, so copies of batches that come again, as from :class:`~waveflow.distillation.Steps` in
    rounds, are kept. The noise depends on the seed and the batch's place alone: a resumed run sees the same.

    Args:
        teacher: a :class:`~waveflow.models.WaveNet` with a continuous head.
        student: of the same noise: both Gaussian or both logistic.
        keep: copies of how many batches are kept, the last ones.
        seed: of the noise.
        rank: this process.

    Raises:
        InputError: for a teacher and a student of different noise, or a negative ``keep``.
    """

    def __init__(self, teacher: WaveNet, student: ParallelWaveNet, keep: int = 0, seed: int = 0, rank: int = 0):
        if keep < 0:
            raise InputError(f"copies of at least 0 batches can be kept, got {keep}")
        if not shares_noise(teacher, student):
            bases = [type(flow_of(model).base).__name__ for model in (teacher, student)]
            raise InputError(
                "teacher and student must make their copies of the same noise, but the teacher's is "
                f"{bases[0]}, the student's {bases[1]}"
            )
        self.teacher, self.keep, self.seed, self.rank = teacher, keep, seed, rank
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with ``noise`` (B, 1, T) and ``copy`` (B, T).

        Args:
            batch: ``waveform`` (B, T), of which the length counts; ``mel`` (B, n_mels, frames), as many as T takes;
                ``place``, by which the batch is known again.

        Raises:
            FloatingPointError: if a copy is not finite.
        """
        place = batch["place"]
        found = self._kept.get(place) or self._draw(batch["mel"], batch["waveform"].shape[1], place)
        if self.keep and place not in self._kept:
            if len(self._kept) == self.keep:
                del self._kept[next(iter(self._kept))]
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
