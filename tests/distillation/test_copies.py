"""What a teacher makes of noise, as lessons for its student."""

import pytest
import torch

from waveflow.audio import MelConfig
from waveflow.distillation import (
    StudentObjective,
    TeacherCopies,
    TermWeights,
    VocoderStudent,
    multi_resolution_stft,
    shares_noise,
)
from waveflow.errors import InputError
from waveflow.models import ParallelWaveNet, WaveNet

MEL = MelConfig(n_mels=4)
SAMPLES = 2000  # not a whole number of hops
ON_A_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
COPIES_ALONE = TermWeights(kl=0.0, penalty=0.0, power=0.0, copies=1.0)


def make_teacher(head="gaussian", std=0.1, **fields):
    torch.manual_seed(0)
    model = WaveNet(
        layers=2, channels=4, first_kernel=2, head=head, upsampler="linear", context_channels=3, mel=MEL, **fields
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(std * torch.randn(p.shape))
    return model


@pytest.fixture
def teacher():
    return make_teacher(whiten=True, whiten_order=8, whiten_block=8, match=2)  # copies are not to be matched


@pytest.fixture
def student(teacher):
    return ParallelWaveNet.from_teacher(teacher, flows=(2, 2), channels=4)


def batch(place, items=2):
    generator = torch.Generator().manual_seed(place)
    mel = torch.randn(items, MEL.n_mels, 8, generator=generator) - 4
    return {"waveform": 0.1 * torch.randn(items, SAMPLES, generator=generator), "mel": mel, "place": place}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_A_GPU)])
def test_copies_are_the_teachers_own_of_the_noise_beside_them(teacher, student, device):
    given = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch(3).items()}
    found = TeacherCopies(teacher.to(device), student.to(device))(given)
    assert found["noise"].shape == (2, 1, SAMPLES) and found["copy"].shape == (2, SAMPLES)
    assert found.keys() - given.keys() == {"noise", "copy"} and torch.equal(found["mel"], given["mel"])
    # The density's parallel pass must give the noise back.
    z, _ = teacher.double().flow.bijector(found["copy"][:, None].double(), found["mel"].double())
    torch.testing.assert_close(z.float(), found["noise"], atol=2e-3, rtol=0)


def test_noise_is_normal_and_new_for_each_place_seed_and_process(teacher, student):
    noises = [
        TeacherCopies(teacher, student, seed=seed, rank=rank)(batch(place, 8))["noise"]
        for seed, rank, place in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    ]
    together = torch.stack(noises).flatten(1)
    assert (torch.corrcoef(together) - torch.eye(4)).abs().max() < 0.05
    assert together.mean().abs() < 0.02 and (together.std() - 1).abs() < 0.02


def test_copies_of_the_last_batches_are_kept(teacher, student, monkeypatch):
    drawn, vocode = [], WaveNet.vocode
    monkeypatch.setattr(WaveNet, "vocode", lambda self, mel, **words: drawn.append(1) or vocode(self, mel, **words))
    copies = TeacherCopies(teacher, student, keep=2)
    found = [copies(batch(place)) for place in (0, 1, 0, 1, 2, 1, 2)]
    assert len(drawn) == 3
    assert torch.equal(found[0]["copy"], found[2]["copy"]) and not torch.equal(found[0]["copy"], found[1]["copy"])
    again = copies(batch(0))  # out of memory since the third came, and what a resumed run begins with
    assert len(drawn) == 4
    assert all(torch.equal(again[name], found[0][name]) for name in ("noise", "copy"))
    forgetful = TeacherCopies(teacher, student)
    assert torch.equal(forgetful(batch(0))["copy"], forgetful(batch(0))["copy"]) and len(drawn) == 6


def test_the_distance_is_from_the_copy_of_the_noise_that_the_student_is_given(teacher, student):
    given = TeacherCopies(teacher, student)(batch(0))
    found = StudentObjective(teacher, student, COPIES_ALONE)(VocoderStudent(student), given)
    moments = student.sample_with_moments(given["noise"], given["mel"])
    waveform = student.whitening.inverse(moments.x, given["mel"])[0][:, 0]
    torch.testing.assert_close(found["copies"], multi_resolution_stft(waveform, given["copy"]).mean().detach())
    torch.testing.assert_close(found["loss"].detach(), found["copies"])
    assert set(found) == {"loss", "copies", "level", "offset"}


@pytest.mark.parametrize("head", ["gaussian", "logistics"])
def test_of_a_teacher_that_is_its_own_student_nothing_is_asked(head):
    """Untaught networks leave noise as it is, in teacher and student, but for the whitening that both have."""
    teacher = make_teacher(head, std=0.0, whiten=True, whiten_order=8, whiten_block=8, components=1)
    student = ParallelWaveNet.from_teacher(
        teacher, flows=(2,), channels=4, base="gaussian" if head == "gaussian" else "logistic"
    )
    given = TeacherCopies(teacher, student)(batch(0))
    shape = teacher.stack(torch.zeros(2, 1, SAMPLES), teacher.encoder(given["mel"])[..., :SAMPLES])
    assert shape.std((0, -1)).max() < 1e-6  # a constant
    found = StudentObjective(teacher, student, COPIES_ALONE)(VocoderStudent(student), given)
    other = given | {"noise": given["noise"].flip(0)}
    assert (
        found["copies"]
        < 0.2 * StudentObjective(teacher, student, COPIES_ALONE)(VocoderStudent(student), other)["copies"]
    )


def test_what_starts_from_other_noise_is_refused(teacher):
    student = ParallelWaveNet.from_teacher(teacher, flows=(2,), channels=4, base="logistic")
    assert not shares_noise(teacher, student)
    with pytest.raises(InputError, match="the teacher's is StandardNormal, the student's StandardLogistic"):
        TeacherCopies(teacher, student)


def test_misuse_is_named(teacher, student):
    with pytest.raises(InputError, match="at least 0 batches can be kept, got -1"):
        TeacherCopies(teacher, student, keep=-1)
    with pytest.raises(InputError, match='"noise" and "copy", got waveform, mel, place'):
        StudentObjective(teacher, student, COPIES_ALONE)(VocoderStudent(student), batch(0))
