"""The loss of students of sound, term by term."""

import math

import pytest
import torch

from waveflow.audio import MelConfig
from waveflow.bijectors import LOG_SCALES
from waveflow.distillation import (
    StudentObjective,
    TermWeights,
    VocoderStudent,
    multi_resolution_stft,
    power_loss,
    reverse_kl,
)
from waveflow.distillation.student_objective import log_gain
from waveflow.errors import InputError
from waveflow.models import ParallelWaveNet, WaveGlow, WaveNet

MEL = MelConfig(hop_length=16, n_fft=64, win_length=64, n_mels=4, f_max=8000.0)
ONLY_KL = TermWeights(penalty=0.0, power=0.0)
WHITEN = {"whiten": True, "whiten_order": 8, "whiten_block": 8}


def shaken(model, std, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(std * torch.randn(p.shape, generator=generator))
    return model


def pair(base="gaussian", head="gaussian", std=0.05, mel=MEL, **fields):
    teacher = WaveNet(
        layers=2,
        channels=4,
        first_kernel=2,
        head=head,
        components=2,
        upsampler="linear",
        context_channels=3,
        mel=mel,
        **fields,
    )
    shaken(teacher, std, 1)
    student = ParallelWaveNet.from_teacher(teacher, flows=(2, 2), channels=4, base=base, initial_scale=0.8)
    with torch.no_grad():
        for flow in student.flows():
            shaken(flow, std, 2)
    return teacher, student


def mels(batch=2, frames=4, config=MEL):
    return torch.randn(batch, config.n_mels, frames, generator=torch.Generator().manual_seed(0)) - 9


@pytest.mark.parametrize("fields", [{}, WHITEN], ids=["raw", "whitened"])
@pytest.mark.parametrize(
    ("base", "head"), [("gaussian", "gaussian"), ("logistic", "logistics"), ("logistic", "gaussian")]
)
def test_the_sum_over_steps_is_the_divergence_of_the_flows(base, head, fields):
    """Against the Monte Carlo estimate on the flow interface, which knows nothing of steps."""
    teacher, student = pair(base, head, **fields)
    teacher, student, mel = teacher.double(), student.double(), mels().double()
    objective = StudentObjective(teacher, student, ONLY_KL, draws=8)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        naive = reverse_kl(student.flow, teacher.flow, mel, 2000, generator)
        many = mel.repeat(200, 1, 1)
        moments = VocoderStudent(student)(many, 64, generator).moments
        found = objective.divergence(moments, many, generator)[0].sum((1, 2)).reshape(200, 2)
    error = (naive.var(0) / 2000 + found.var(0) / 200).sqrt()
    assert ((found.mean(0) - naive.mean(0)).abs() < 4 * error).all()
    assert (naive.mean(0) > 4 * error).all()  # there is something to measure
    if (base, head) == ("gaussian", "gaussian"):
        assert (found.std(0) < naive.std(0)).all()  # what the closed form is for


@pytest.mark.parametrize("fields", [{}, WHITEN], ids=["raw", "whitened"])
def test_draws_of_each_step_estimate_the_closed_form(fields):
    teacher, student = pair(**fields)
    mel = mels()
    objective = StudentObjective(teacher, student, ONLY_KL, draws=4000)
    with torch.no_grad():
        moments = VocoderStudent(student)(mel, 64).moments
        closed = objective.divergence(moments, mel)[0]
        objective._closed_form = False
        estimated = objective.divergence(moments, mel)[0]
    torch.testing.assert_close(estimated, closed, atol=0.08, rtol=0.05)


def test_the_gain_is_that_of_the_whitening():
    """One sample at a time: by how much the residual changes when only this sample does."""
    teacher, _ = pair(whiten_correction=2, **WHITEN)
    whitening, mel = teacher.double().whitening, mels(1).double()
    x = 0.1 * torch.randn(1, 1, 64, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: whitening(v, mel)[0].flatten(), x).reshape(64, 64)
    gain = log_gain(whitening, mel, 64)[0, 0]
    torch.testing.assert_close(-jacobian.diagonal()[8:].log(), gain[8:])  # the first samples have lower orders


def test_a_floor_counts_in_units_of_the_waveform():
    teacher, student = pair(**WHITEN)
    mel = mels()
    with torch.no_grad():
        moments = VocoderStudent(student)(mel, 64).moments
        low = log_gain(teacher.whitening, mel, 64).min().item() - 20
        free, above = (
            StudentObjective(teacher, student, ONLY_KL, floor=floor).divergence(moments, mel)[0] for floor in (low, 0.0)
        )
        exact = StudentObjective(teacher, student, ONLY_KL).divergence(moments, mel)[0]
    torch.testing.assert_close(free, exact, rtol=1e-4, atol=1e-5)
    assert above.abs().mean() < 0.1 * exact.mean()  # of quiet residuals, everything lies below 1


def batch_of(mel, samples):
    waveform = 0.1 * torch.randn(len(mel), samples, generator=torch.Generator().manual_seed(5))
    return {"waveform": waveform, "mel": mel}


def test_every_term_is_logged_and_can_be_switched_off():
    mel_config = MelConfig(n_mels=4)
    teacher, student = pair(mel=mel_config)
    batch = batch_of(mels(2, 8, mel_config) + 4, 2048)
    on = TermWeights(kl=1.0, penalty=4.0, power=0.5, stft=2.0, contrastive=0.3)

    def call(weights):
        torch.manual_seed(0)
        return StudentObjective(teacher, student, weights)(VocoderStudent(student), batch)

    found = call(on)
    assert set(found) == {"loss", "kl", "penalty", "power", "stft", "contrastive", "level", "offset"}
    expected = (
        found["kl"] + 4 * found["penalty"] + 0.5 * found["power"] + 2 * found["stft"] - 0.3 * found["contrastive"]
    )
    torch.testing.assert_close(found["loss"].detach(), expected)
    assert set(call(ONLY_KL)) == {"loss", "kl", "level", "offset"}
    torch.manual_seed(0)
    drawn = VocoderStudent(student)(batch["mel"], 2048).waveform
    torch.testing.assert_close(found["power"], power_loss(drawn, batch["waveform"], low_bins=139).mean().detach())
    torch.testing.assert_close(found["stft"], multi_resolution_stft(drawn, batch["waveform"]).mean().detach())
    torch.testing.assert_close(
        found["level"], drawn.detach().square().mean().sqrt() / batch["waveform"].square().mean().sqrt()
    )
    spectra_alone = call(TermWeights(kl=0.0, penalty=0.0))
    assert set(spectra_alone) == {"loss", "power", "level", "offset"}


@pytest.mark.parametrize("fields", [{}, WHITEN], ids=["raw", "whitened"])
def test_only_the_student_learns_and_not_what_it_has_of_its_teacher(fields):
    teacher, student = pair(**fields)
    objective = StudentObjective(teacher, student, TermWeights(power=0.0))
    objective(VocoderStudent(student), batch_of(mels(), 64))["loss"].backward()
    learning = {p for flow in student.flows() for p in flow.parameters()}
    for p in student.parameters():
        assert (p.grad is not None and p.grad.isfinite().all()) == (p in learning)
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())


def test_the_gradient_passes_through_the_teacher():
    """By finite differences of the loss in one weight."""
    teacher, student = pair(std=0.2)
    teacher, student = teacher.double(), student.double()
    batch = {name: x.double() for name, x in batch_of(mels(), 64).items()}
    objective = StudentObjective(teacher, student, TermWeights(power=0.0))
    weight = next(student.flows()).conditioner.output.weight

    def loss():
        return objective(VocoderStudent(student), batch, torch.Generator().manual_seed(3))["loss"]

    loss().backward()
    i, step = (0, 1, 0), 1e-6
    with torch.no_grad():
        weight[i] += step
        above = loss()
        weight[i] -= 2 * step
        below = loss()
    assert weight.grad[i].item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-5)


def test_a_folded_teacher_teaches_the_same():
    teacher, student = pair(std=0.2)
    batch, grads = batch_of(mels(), 64), []
    for one in (teacher, teacher.for_inference()):
        student.zero_grad()
        objective = StudentObjective(one, student, TermWeights(power=0.0))
        objective(VocoderStudent(student), batch, torch.Generator().manual_seed(3))["loss"].backward()
        grads.append(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]))
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4 * grads[0].abs().max().item())


def test_a_few_steps_bring_the_student_nearer():
    teacher, student = pair(std=0.1)
    objective, mel = StudentObjective(teacher, student, TermWeights(power=0.0)), mels(8)
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    found = []
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        answer = objective(VocoderStudent(student), batch_of(mel, 64))
        answer["loss"].backward()
        optimizer.step()
        found.append(answer["kl"].item())
    assert sum(found[-5:]) < 0.3 * sum(found[:5])


def other(**fields):
    return ParallelWaveNet(
        flows=(1,), channels=4, **{"mel": MEL, "upsampler": "linear", "context_channels": 3, **fields}
    )


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (
            lambda: other(
                mel=MelConfig(hop_length=16, n_fft=64, win_length=64, n_mels=4, f_max=8000.0, sample_rate=24000)
            ),
            "same sample rate, but the teacher is of 22050 Hz, the student of 24000 Hz",
        ),
        (lambda: other(mel=MelConfig(hop_length=16, n_fft=64, win_length=64, n_mels=5, f_max=8000.0)), "the same mel"),
        (lambda: other(**WHITEN), "whiten alike"),
        (lambda: other().to("meta"), "the teacher is on cpu, the student on meta"),
    ],
)
def test_students_of_another_world_are_refused(student, message):
    teacher, _ = pair()
    with pytest.raises(InputError, match=message):
        StudentObjective(teacher, student())


def test_teachers_that_cannot_teach_are_refused():
    _, student = pair()
    tiny = {"layers": 1, "channels": 4, "mel": MEL, "upsampler": "linear", "context_channels": 3}
    with pytest.raises(InputError, match=r'continuous head, whose density has a gradient, got a WaveNet .* "softmax"'):
        StudentObjective(WaveNet(**tiny, head="softmax"), student)
    with pytest.raises(InputError, match="got a WaveGlow"):
        StudentObjective(WaveGlow(flows=1, channels=4, layers=1, early_every=0), student)
    with pytest.raises(InputError, match="the same context, a mel, but the teacher is one of 3 speakers"):
        StudentObjective(WaveNet(**tiny, speakers=3), student)
    with pytest.raises(InputError, match="one voice, got a WaveNet of 3 speakers"):
        ParallelWaveNet.from_teacher(WaveNet(**tiny, speakers=3))
    with pytest.raises(InputError, match="the student's whiten is that of its teacher, False, got True"):
        ParallelWaveNet.from_teacher(WaveNet(**tiny), whiten=True)


def test_bad_settings_are_refused():
    teacher, student = pair()
    with pytest.raises(InputError, match="factor of power must be at least 0, got -1"):
        TermWeights(power=-1.0)
    with pytest.raises(InputError, match="nothing to learn from"):
        TermWeights(kl=0.0, power=0.0)
    with pytest.raises(InputError, match="at least 1 draw"):
        StudentObjective(teacher, student, draws=0)
    with pytest.raises(InputError, match="at least 2 mels, got 1"):
        weights = TermWeights(power=0.0, contrastive=0.3)
        StudentObjective(teacher, student, weights)(VocoderStudent(student), batch_of(mels(1), 64))


class LinearStack(torch.nn.Module):
    """Mean sum_k taps[k] x_{t - 1 - k} and one raw scale, in the place of a stack."""

    def __init__(self, taps, raw):
        super().__init__()
        self.register_buffer("taps", torch.tensor(taps, dtype=torch.float64).flip(0)[None, None])
        self.raw = raw

    def forward(self, x, context=None):
        before = torch.nn.functional.pad(x, (self.taps.shape[-1], 0))[..., :-1]
        mean = torch.nn.functional.conv1d(before, self.taps)
        return torch.stack([mean, torch.full_like(mean, self.raw)], 1)


def linear_pair(a=0.8, samples=32, delay=0):
    """x_t = a x_{t-1} + sigma e_t as teacher; as student white noise scaled by one flow and filtered by the other."""
    teacher, student = (model.double() for model in pair())
    raw = -0.7
    log_std = LOG_SCALES[teacher.layers.bijector.univariate.scale](torch.tensor(raw, dtype=torch.float64)).item()
    teacher.layers.bijector.conditioner = LinearStack([a], raw)
    first, second = student.flows()
    first.conditioner = LinearStack([0.0], 5 * math.atanh(log_std / 5))
    second.conditioner = LinearStack([0.0] * delay + [a ** (k + 1) for k in range(samples)], 0.0)
    return teacher, student


@pytest.mark.parametrize("delay", [0, 1])
def test_a_student_that_is_its_linear_teacher_has_no_divergence(delay):
    """What an autoregression says of x_t is what its impulse response says of z_t: none a sample late or early."""
    teacher, student = linear_pair(delay=delay)
    mel = mels(2, 2).double()
    with torch.no_grad():
        moments = VocoderStudent(student)(mel, 32, torch.Generator().manual_seed(0)).moments
        kl, penalty = StudentObjective(teacher, student, ONLY_KL).divergence(moments, mel)
        naive = reverse_kl(student.flow, teacher.flow, mel, 3)
    if delay:
        assert kl.mean() > 0.1 and naive.mean() > 0.1 * 32
    else:
        assert kl.abs().max() < 1e-12 and penalty.abs().max() < 1e-12 and naive.abs().max() < 1e-10
        expected = 0.8 * torch.nn.functional.pad(moments.x, (1, 0))[..., :-1]
        torch.testing.assert_close(moments.location, expected)
