"""Held-out clips on which a student is set beside its teacher and the recordings."""

import logging
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from waveflow.audio.metrics import compare_tracks, pitch_track, stft_distance
from waveflow.data import SpeechItem
from waveflow.distillation.student_objective import StudentObjective
from waveflow.distillation.whispering import voice_kept
from waveflow.errors import InputError
from waveflow.models import ParallelWaveNet, VocoderModel

logger = logging.getLogger("waveflow")

_WHISPER = 0.5  # of the teacher's share of voiced frames that are kept: below, a student whispers
_FAINT = 0.5  # of the teacher's level


class Examination:
    """Divergence and what is heard of it. Teacher and student draw at temperature 1, the teacher once and for all.

    Where both are Gaussian, a clip is drawn from the same noise by both. Both turn it into sound by increasing
    triangular maps, of which a density has only one (Knothe, Rosenblatt): a perfect student's copies are its teacher's.

    Args:
        objective: of the student, with its teacher.
        clips: waveform (T,) and mel (n_mels, frames) each, T = frames * hop_length.
        seed: of the draws.
        draws: copies of each clip. Errors of F0 scatter by hundredths from one draw to another.

    Attributes:
        theirs: the teacher's copies (T,), one of each clip, then the next of each.
        ours: those of the student examined last.
        teacher: the teacher's own figures, named as the student's; ``_to_teacher`` is of another draw of the same
            teacher: the distance that noise alone makes.

    Raises:
        InputError: for no clips, or fewer than one draw.
    """

    def __init__(self, objective: StudentObjective, clips: Sequence[SpeechItem], seed: int = 0, draws: int = 1):
        if not clips:
            raise InputError("an examination needs at least one clip, got none")
        if draws < 1:
            raise InputError(f"an examination needs at least 1 draw of each clip, got {draws}")
        self._objective, self._clips = objective, list(clips) * draws
        self._seeds = [seed + draw for draw in range(draws) for _ in clips]
        self._rate = objective.teacher.mel_config.sample_rate
        self.theirs, self.ours = self._copies(objective.teacher, self._seeds), []
        self._real = [clip["waveform"] for clip in self._clips]
        self._tracks = {kind: self._pitch(heard) for kind, heard in (("real", self._real), ("theirs", self.theirs))}
        again = self._copies(objective.teacher, [seed + draws for seed in self._seeds])
        self.teacher = self._heard(self.theirs, self._tracks["theirs"]) | self._beside(again, self._pitch(again))

    @torch.no_grad()
    def __call__(self, student: ParallelWaveNet) -> dict[str, float]:
        """Figures of a student.

        Returns:
            ``kl`` and ``kl_error``, its standard error, nats per sample (pieces of a second are taken as independent,
            also those of several draws of one clip, which makes it too small); from the recordings ``mstft`` and the
            errors of F0 by the names of :class:`~waveflow.audio.metrics.PitchErrors`, ``f0_rmse`` and ``f0_fine``
            (Hz), ``f0_gross`` and ``f0_frame_error`` (shares); the same with ``_to_teacher`` from the teacher's copies;
            ``voice_kept``, see :func:`~waveflow.distillation.voice_kept`; ``level``, the root mean square over that of
            the recordings, and ``offset``, the mean over the same. NaN for what cannot be said. The log ``waveflow``
            says by name if the student whispers or faints beside its teacher.
        """
        self.ours = self._copies(student, self._seeds)
        track = self._pitch(self.ours)
        figures = self._divergence(student) | self._heard(self.ours, track) | self._beside(self.ours, track)
        self._warn(figures)
        return figures

    def _heard(self, copies: list[Tensor], track: list[np.ndarray]) -> dict[str, float]:
        return self._compare(copies, track, self._real, self._tracks["real"]) | self._voice(copies)

    def _beside(self, copies: list[Tensor], track: list[np.ndarray]) -> dict[str, float]:
        found = self._compare(copies, track, self.theirs, self._tracks["theirs"])
        return {f"{name}_to_teacher": value for name, value in found.items()}

    def _copies(self, model: VocoderModel, seeds: Sequence[int]) -> list[Tensor]:
        device = next(model.parameters()).device
        copies = []
        for clip, seed in zip(self._clips, seeds, strict=True):
            generator = torch.Generator(device).manual_seed(seed)
            copies.append(model.vocode(clip["mel"][None], 1.0, generator=generator)[0].float().cpu())
        return copies

    def _divergence(self, student: ParallelWaveNet) -> dict[str, float]:
        like = next(student.parameters())
        pieces = []
        for clip, seed in zip(self._clips, self._seeds, strict=True):
            generator = torch.Generator(like.device).manual_seed(seed)
            mel = clip["mel"][None].to(like)
            shape = (1, 1, len(clip["waveform"]))
            z = student.flow.base.sample(shape, generator=generator, dtype=like.dtype, device=like.device)
            kl, _ = self._objective.divergence(student.sample_with_moments(z, mel), mel, generator)
            parts = kl.double().flatten().split(self._rate)
            pieces += [part.mean().item() for part in parts if 2 * len(part) >= self._rate or len(parts) == 1]
        error = np.std(pieces, ddof=1) / math.sqrt(len(pieces)) if len(pieces) > 1 else math.nan
        return {"kl": float(np.mean(pieces)), "kl_error": float(error)}

    def _compare(
        self, copies: list[Tensor], track: list[np.ndarray], references: list[Tensor], other: list[np.ndarray]
    ) -> dict[str, float]:
        mstft = [stft_distance(r, c.clamp(-1, 1)) for r, c in zip(references, copies, strict=True)]
        pitch = compare_tracks(np.concatenate(track), np.concatenate(other))
        errors = {"rmse": pitch.rmse, "fine": pitch.fine, "gross": pitch.gross, "frame_error": pitch.frame_error}
        found = {f"f0_{name}": math.nan if error is None else error for name, error in errors.items()}
        return {"mstft": float(np.mean(mstft)), **found}

    def _voice(self, copies: list[Tensor]) -> dict[str, float]:
        kept = [
            voice_kept(c[None], r[None], self._rate)
            for c, r in zip(copies, self._real, strict=True)
            if len(r) >= 0.06 * self._rate + 1
        ]
        kept = [share for share in kept if share is not None]
        ours, real = (torch.cat(heard).double() for heard in (copies, self._real))
        unit = real.square().mean().sqrt().clamp_min(1e-15)
        return {
            "voice_kept": sum(kept) / len(kept) if kept else math.nan,
            "level": (ours.square().mean().sqrt() / unit).item(),
            "offset": (ours.mean() / unit).item(),
        }

    def _pitch(self, heard: list[Tensor]) -> list[np.ndarray]:
        return [pitch_track(x.clamp(-1, 1).numpy(), self._rate) for x in heard]

    def _warn(self, figures: dict[str, float]) -> None:
        if figures["voice_kept"] < _WHISPER * self.teacher["voice_kept"]:
            logger.warning(
                "whispering: of the voiced frames of recordings %.0f %% are voiced in the student's copies, "
                "in its teacher's %.0f %%",
                100 * figures["voice_kept"],
                100 * self.teacher["voice_kept"],
            )
        if figures["level"] < _FAINT * self.teacher["level"]:
            logger.warning(
                "fainting: the student's level is %.2f of the recordings', its teacher's %.2f",
                figures["level"],
                self.teacher["level"],
            )


def synthesis_cost(model: VocoderModel, mel: Tensor, repeats: int = 3) -> float:
    """Seconds of work per second of audio: of the processor's time on a CPU, of the clock on a GPU. Best of several.

    Args:
        model: ready for synthesis.
        mel: (1, n_mels, frames).
        repeats: runs after a first one, which does not count.
    """
    device = next(model.parameters()).device
    clock: Callable[[], float] = time.process_time if device.type == "cpu" else time.perf_counter
    seconds = []
    for _ in range(repeats + 1):
        start = clock()
        model.vocode(mel, 1.0).cpu()  # waits for the device
        seconds.append(clock() - start)
    config = model.mel_config
    return min(seconds[1:]) * config.sample_rate / (mel.shape[2] * config.hop_length)
