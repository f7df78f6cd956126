"""What an examination says of students, against the same worked out clip by clip."""

import math

import numpy as np
import pytest
import torch

from waveflow.audio import MelSpectrogram
from waveflow.audio.metrics import pitch_track, stft_distance
from waveflow.distillation import StudentObjective, TermWeights
from waveflow.distillation.examination import Examination
from waveflow.errors import InputError
from waveflow.models import ParallelWaveNet, WaveNet

TEACHER = {"layers": 2, "channels": 8, "upsampler": "linear", "context_channels": 8, "whiten": True, "whiten_order": 16}


@pytest.fixture(scope="module")
def heard():
    """A teacher, an untaught student and two clips of voices at 150 and 220 Hz, whispered at their ends."""
    torch.manual_seed(0)
    teacher = WaveNet(**TEACHER)
    student = ParallelWaveNet.from_teacher(teacher, flows=(2, 2), channels=8)
    config = teacher.mel_config
    time = torch.arange(80 * config.hop_length) / config.sample_rate
    clips = []
    for frequency in (150, 220):
        tone = sum(torch.sin(2 * math.pi * frequency * k * time) / k for k in range(1, 12))
        wave = 0.1 * tone * (time < 0.8 * time[-1]) + 0.01 * torch.randn(len(time))
        clips.append({"name": f"{frequency}", "waveform": wave, "mel": MelSpectrogram(config)(wave[None])[0][:, :80]})
    return StudentObjective(teacher, student, TermWeights(), None, 1), student, clips


@pytest.fixture
def voiced(monkeypatch, heard):
    """Copies that have a voice, as trained models' have: a little sharp, by a draw, and one by more than a fifth."""

    def vocode(self, mel, temperature, *, generator):
        which = next(i for i, clip in enumerate(heard[2]) if torch.equal(clip["mel"][None], mel))
        time = torch.arange(mel.shape[2] * self.mel_config.hop_length) / self.mel_config.sample_rate
        frequency = (150, 268)[which] * (1 + 0.02 * torch.rand(1, generator=generator))
        tone = sum(torch.sin(2 * math.pi * frequency * k * time) / k for k in range(1, 12))
        return 0.1 * tone[None] + 0.01 * torch.randn(1, len(time), generator=generator)

    monkeypatch.setattr(WaveNet, "vocode", vocode)
    monkeypatch.setattr(ParallelWaveNet, "vocode", lambda self, *args, **words: -0.8 * vocode(self, *args, **words))


def errors(copies, references, rate) -> dict[str, float]:
    squares, near, far, wrong, frames = [], [], 0, 0, 0
    for copy, reference in zip(copies, references, strict=True):
        for ours, theirs in zip(*(pitch_track(x.numpy(), rate) for x in (copy, reference)), strict=True):
            frames += 1
            wrong += math.isnan(ours) != math.isnan(theirs)
            if not math.isnan(ours - theirs):
                squares.append((ours - theirs) ** 2)
                close = int(abs(ours - theirs) < 0.2 * theirs)
                near += squares[-1:] * close
                far += 1 - close
    return {
        "f0_rmse": math.sqrt(np.mean(squares)),
        "f0_fine": math.sqrt(np.mean(near)),
        "f0_gross": far / len(squares),
        "f0_frame_error": (far + wrong) / frames,
        "mstft": np.mean([stft_distance(r, c) for r, c in zip(references, copies, strict=True)]),
    }


def test_figures_are_those_of_all_frames_together(heard, voiced):
    objective, student, clips = heard
    examine = Examination(objective, clips)
    found = examine(student)
    real, rate = [clip["waveform"] for clip in clips], student.mel_config.sample_rate
    assert 0.1 < found["f0_gross"] < 0.6 and found["f0_fine"] < 12 < found["f0_rmse"]
    for copies, figures in ((examine.ours, found), (examine.theirs, examine.teacher)):
        expected = errors([copy.clamp(-1, 1) for copy in copies], real, rate)
        assert {name: figures[name] for name in expected} == pytest.approx(expected)
    expected = errors([c.clamp(-1, 1) for c in examine.ours], [c.clamp(-1, 1) for c in examine.theirs], rate)
    beside = {f"{name}_to_teacher": value for name, value in expected.items()}
    assert {name: found[name] for name in beside} == pytest.approx(beside)


def test_a_perfect_student_gives_its_teachers_copies(heard):
    objective, student, clips = heard  # neither has learned anything: both are the whitening alone
    examine = Examination(objective, clips)
    found = examine(student)
    assert found["kl"] == pytest.approx(0, abs=1e-5)
    assert found["mstft_to_teacher"] < 1e-3 < 0.1 < examine.teacher["mstft_to_teacher"]
    for ours, theirs in zip(examine.ours, examine.theirs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_teacher_is_compared_with_another_draw_of_itself(heard):
    objective, _, clips = heard
    examine = Examination(objective, clips, seed=3)
    again = Examination(objective, clips, seed=4).theirs
    expected = np.mean([stft_distance(a, b) for a, b in zip(examine.theirs, again, strict=True)])
    assert examine.teacher["mstft_to_teacher"] == pytest.approx(expected) and expected > 0.1


def test_each_draw_is_of_other_noise_and_counts_alike(heard, voiced):
    objective, student, clips = heard
    both = Examination(objective, clips, seed=3, draws=2)
    alone = [Examination(objective, clips, seed=seed) for seed in (3, 4)]
    found, expected = both(student), [examine(student) for examine in alone]
    for i, copies in enumerate(zip(both.ours, both.theirs, strict=True)):
        one = alone[i // 2]
        assert torch.equal(copies[0], one.ours[i % 2]) and torch.equal(copies[1], one.theirs[i % 2])
    assert not torch.equal(both.ours[0], both.ours[2])
    for name in ("kl", "mstft", "mstft_to_teacher", "f0_frame_error", "f0_frame_error_to_teacher", "voice_kept"):
        assert found[name] == pytest.approx(np.mean([figures[name] for figures in expected])), name
    again = Examination(objective, clips, seed=5, draws=2).theirs
    distance = np.mean([stft_distance(a, b) for a, b in zip(both.theirs, again, strict=True)])
    assert both.teacher["mstft_to_teacher"] == pytest.approx(distance)


def test_no_clips_and_no_draws_are_refused(heard):
    with pytest.raises(InputError, match="at least one clip, got none"):
        Examination(heard[0], [])
    with pytest.raises(InputError, match="at least 1 draw of each clip, got 0"):
        Examination(heard[0], heard[2], draws=0)
