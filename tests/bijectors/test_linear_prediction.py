"""The whitening of speech by its mel, beyond what the registry checks."""

import math
from pathlib import Path

import pytest
import torch
from registry import SMALL_MEL, random
from scipy.linalg import toeplitz
from scipy.stats import multivariate_normal

from waveflow.audio import MelConfig, MelEnvelope, MelSpectrogram, autocorrelation
from waveflow.bijectors import LinearPrediction
from waveflow.context import Ragged
from waveflow.data import WholeClips, find_clips, split_clips
from waveflow.evaluation import dequantize

LJSPEECH = Path(__file__).parents[3] / "shared" / "data" / "ljspeech"


def speechlike_mel(frames, batch=1, swing=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return swing * torch.randn(batch, 80, frames, generator=generator, dtype=torch.float64) - 5


def test_under_a_steady_mel_it_is_the_gaussian_process_of_the_envelope():
    """Residual and log-det together against the density of a Toeplitz covariance, the first samples included."""
    config, whiten = MelConfig(), LinearPrediction(MelConfig(), order=40)
    mel = speechlike_mel(1).expand(-1, -1, 2)
    x = 0.01 * random(3, 1, 41).double()
    z, log_det = whiten(x, mel.expand(3, -1, -1))
    found = -0.5 * z.square().sum((1, 2)) - 20.5 * math.log(2 * math.pi) + log_det
    lags = autocorrelation(MelEnvelope(config)(mel), 41)[0, :, 0].numpy()
    lags[0] = lags[0] * (1 + 1e-9) + (1 / 32768) ** 2 / 12
    expected = multivariate_normal(cov=toeplitz(lags)).logpdf(x[:, 0].numpy())
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-7, atol=1e-5)


def test_the_gain_divides_all_residuals():
    whiten, mel, x = LinearPrediction(MelConfig()), speechlike_mel(4), 0.1 * random(1, 1, 1024).double()
    z, log_det = whiten(x, mel)
    with torch.no_grad():
        whiten.log_gain.fill_(2 * math.log(3))
    scaled, scaled_log_det = whiten(x, mel)
    torch.testing.assert_close(3 * scaled, z, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scaled_log_det, log_det - 1024 * math.log(3), rtol=1e-6, atol=0)


SIGNALS = {
    "digital zero": torch.zeros(4096),
    "DC": torch.ones(4096),
    "a pure tone": torch.sin(torch.arange(4096) * 0.3),
    "a full-scale square wave": torch.sign(torch.sin(torch.arange(4096) * 0.05) + 1e-9),
    "one click": torch.eye(4096)[2000],
    "noise": random(4096).clamp(-1, 1),
}


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("own_mel", [True, False], ids=["its own mel", "the mel of silence"])
def test_extreme_signals_stay_finite_both_ways(name, own_mel):
    x, whiten = SIGNALS[name][None], LinearPrediction(MelConfig())
    mel = MelSpectrogram(MelConfig())(x if own_mel else torch.zeros_like(x))
    z, log_det = whiten(x[:, None], mel)
    back, inverse_log_det = whiten.inverse(z, mel)
    assert all(t.isfinite().all() for t in (z, log_det, back, inverse_log_det))
    assert (back[:, 0] - x).abs().max() < 1e-4


@pytest.mark.parametrize("swing", [1, 3, 8])
def test_random_mels_do_not_make_the_synthesis_unstable(swing):
    """The state is bounded: what comes out never has more energy than what goes in at the loudest level."""
    mel = speechlike_mel(400, swing=swing).clamp_max(2)
    whiten = LinearPrediction(MelConfig())
    z = random(1, 1, 400 * 256).double()
    x, _ = whiten.inverse(z, mel)
    reflection, log_power = whiten.filters(mel, z.shape[-1])
    energy_in = (z.square().reshape(1, -1, 64).sum(2) * log_power.exp()).sum()
    assert x.isfinite().all() and (reflection.abs() < 1).all()
    # each of the 32 states of the lattice holds at most the input's energy, and x is the first of them
    assert x.square().sum() <= 32 * energy_in
    torch.testing.assert_close(whiten(x, mel)[0], z, atol=1e-6, rtol=0)


@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize("onset", [5120, 5248, 5312])
def test_filters_stand_where_the_sound_is(padding, onset):
    """Where noise sets in, the power is halfway: frames of both kinds of padding are placed in time."""
    config = MelConfig(padding=padding, power=2.0)
    x = 0.1 * random(64, 40 * 256).double()
    x[:, :onset] *= 1e-3
    mel = MelSpectrogram(config).double()(x)
    _, log_power = LinearPrediction(config).filters(mel, x.shape[-1])
    late = log_power.exp().mean(0) > 0.5 * 0.01
    found = int(late.int().argmax()) * 64 + 32
    assert abs(found - onset) <= 80 and late[found // 64 :].all()


@pytest.mark.parametrize("padding", ["center", "same"])
def test_parts_equal_the_whole(padding):
    whiten = LinearPrediction(MelConfig(padding=padding), correction=4).double()
    with torch.no_grad():
        whiten.correction.last.weight.normal_(std=0.1)
    mel, z = speechlike_mel(11, 2), random(2, 1, 11 * 256).double()
    whole, _ = whiten.inverse(z, mel)
    pieces, state = [], None
    for first, last in ((0, 1), (1, 5), (5, 11)):
        piece, state = whiten.inverse_part(z[..., first * 256 : last * 256], mel, first, state)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 2), whole, atol=1e-12, rtol=0)


def test_padding_does_not_reach_into_an_item():
    whiten = LinearPrediction(MelConfig(), correction=4).double()
    with torch.no_grad():
        whiten.correction.last.weight.normal_(std=0.1)
    mel, z = speechlike_mel(9, 2), random(2, 1, 9 * 256).double()
    together, _ = whiten.inverse(z, Ragged.from_lengths(mel, torch.tensor([9, 4])))
    alone, _ = whiten.inverse(z[1:, :, : 4 * 256], mel[1:, :, :4])
    torch.testing.assert_close(together[1:, :, : 4 * 256], alone, atol=1e-12, rtol=0)


def test_lengths_are_counted_exactly_in_bfloat16():
    whiten, mel = LinearPrediction(MelConfig()), speechlike_mel(1003).bfloat16()
    ragged, alone = Ragged.from_lengths(mel, torch.tensor([1001])), mel[..., :1001]
    a, b = whiten.filters(ragged, 1003 * 256)[0], whiten.filters(alone, 1001 * 256)[0]
    torch.testing.assert_close(a[:, : b.shape[1]], b)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients(direction):
    whiten = LinearPrediction(SMALL_MEL, 5, 4, 3).double()
    with torch.no_grad():
        for parameter in whiten.parameters():
            parameter.normal_(std=0.3)
    parameters = dict(whiten.named_parameters())
    x, mel = random(2, 1, 20).double(), random(2, 6, 2).double()

    class Directed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.whiten = whiten

        def forward(self, x, mel):
            return getattr(self.whiten, direction)(x, mel)

    def call(x, mel, *values):
        named = {f"whiten.{name}": value for name, value in zip(parameters, values, strict=True)}
        return torch.func.functional_call(Directed(), named, (x, mel))

    inputs = [t.detach().requires_grad_() for t in (x, mel, *parameters.values())]
    torch.autograd.gradcheck(call, inputs)
    torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


def test_autocast_and_casts_change_nothing():
    whiten, mel, x = LinearPrediction(MelConfig(), correction=8), speechlike_mel(4).float(), 0.1 * random(1, 1, 1024)
    with torch.no_grad():
        whiten.correction.last.weight.normal_(std=0.1)
    z, log_det = whiten(x, mel)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same, same_log_det = whiten(x, mel)
    assert torch.equal(z, same) and torch.equal(log_det, same_log_det) and log_det.dtype == torch.float32
    assert "log_gain" in whiten.state_dict() and not any("envelope" in name for name in whiten.state_dict())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LinearPrediction(MelConfig(), order=513), "order of 1 to 512, half the FFT, got 513"),
        (lambda: LinearPrediction(MelConfig(), order=0), "order of 1 to 512"),
        (lambda: LinearPrediction(MelConfig(), block=96), "block that divides the hop of 256, got 96"),
        (
            lambda: LinearPrediction(MelConfig())(random(1, 1, 1025), random(1, 80, 4)),
            r"mels \(B, 80, 5 or more\) of tacotron2 \(22050 Hz.* for 1025 samples, got \(1, 80, 4\)",
        ),
        (
            lambda: LinearPrediction(MelConfig()).inverse(random(1, 1, 512), random(1, 100, 4)),
            r"mels \(B, 80, 2 or more\) of tacotron2.*got \(1, 100, 4\)",
        ),
        (lambda: LinearPrediction(MelConfig())(random(1, 1, 512)), "LinearPrediction expects a context, got None"),
        (lambda: LinearPrediction(MelConfig())(random(1, 2, 512), random(1, 80, 4)), r"\(1, any\), got \(2, 512\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("order", "block"), [(32, 64), (128, 32)])
def test_on_a_gpu_it_is_what_it_is_on_a_cpu(order, block):
    whiten = LinearPrediction(MelConfig(), order, block, correction=8).double()
    with torch.no_grad():
        whiten.correction.last.weight.normal_(std=0.1)
    mel, x = speechlike_mel(20, 2), 0.1 * random(2, 1, 20 * 256).double()
    results = {}
    for device in ("cpu", "cuda"):
        whiten.to(device).zero_grad()
        inputs = [t.to(device).detach().requires_grad_() for t in (x, mel)]
        z, log_det = whiten(*inputs)
        back, inverse_log_det = whiten.inverse(z, inputs[1])
        loss = z.sin().mean() + log_det.mean() / x.shape[-1] + whiten.inverse(inputs[0], inputs[1])[0].sin().mean()
        loss.backward()
        gradients = [t.grad for t in (*inputs, *whiten.parameters())]
        results[device] = [t.detach().cpu() for t in (z, log_det, back, inverse_log_det, *gradients)]
    for on_cpu, on_gpu in zip(*results.values(), strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, atol=1e-9, rtol=1e-7)


@pytest.fixture(scope="module")
def clips():
    if not LJSPEECH.is_dir():
        pytest.skip("the LJ Speech part is not here")
    return list(WholeClips(split_clips(find_clips(LJSPEECH))[1][:5], MelConfig(), progress=False))


def test_untrained_it_beats_a_causal_predictor_on_speech(clips):
    """A predictor of order 24 made from the past of the signal itself reaches 4.26 nats per sample."""
    whiten, nats, samples, energy = LinearPrediction(MelConfig()), 0.0, 0, 0.0
    for index, clip in enumerate(clips):
        x = dequantize(clip["waveform"], (0, index))[None, None]
        with torch.no_grad():
            z, log_det = whiten(x, clip["mel"][None])
        energy += float(z.square().sum())
        nats += float(log_det - 0.5 * z.square().sum() - 0.5 * math.log(2 * math.pi) * z.numel())
        samples += z.numel()
    assert nats / samples >= 4.3 and 0.8 < energy / samples < 1.25


def test_round_trip_on_speech(clips):
    whiten = LinearPrediction(MelConfig())
    for clip in clips:
        x = clip["waveform"][None, None] / clip["waveform"].abs().max()  # at full level
        mel = MelSpectrogram(MelConfig())(x[0])
        for tolerance, dtype in ((1e-4, torch.float32), (1e-8, torch.float64)):
            z, log_det = whiten(x.to(dtype), mel)
            back, inverse_log_det = whiten.inverse(z, mel)
            assert (back - x).abs().max() <= tolerance and torch.equal(log_det, -inverse_log_det)
