"""The student of Parallel WaveNet as its users call it."""

import logging
import math

import pytest
import torch

from waveflow.audio import MelConfig
from waveflow.bijectors.solvers import Jacobi
from waveflow.errors import InputError
from waveflow.models import ParallelWaveNet, WaveFlow, WaveGlow, load_model
from waveflow.networks import WaveNetStream
from waveflow.networks.compiled_layers import CompiledLayers
from waveflow.networks.compiled_stream import CompiledStream
from waveflow.testing import check_bijector

SMALL = {"flows": (3, 4), "channels": 8, "upsampler": "linear", "context_channels": 6, "initial_scale": 0.5}
VARIANTS = {
    "gaussian": {},
    "logistic, exp": {"base": "logistic", "scale": "exp"},
    "transposed": {"upsampler": "transposed"},
    "whitened": {"whiten": True, "whiten_correction": 4},
}


def student(std=0.1, **fields):
    """Away from the start, as training moves a model."""
    model = ParallelWaveNet(**{**SMALL, **fields})
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(std * torch.randn(p.shape, generator=generator))
    return model


def mels(batch=2, frames=4):
    return torch.randn(batch, 80, frames, generator=torch.Generator().manual_seed(9)) - 5


def noise(model, batch=2, frames=4):
    return model.draw_latent(frames, batch, 1.0, torch.Generator().manual_seed(3))


def test_reference_preset_has_the_papers_size():
    def normed(out, inputs, taps=1):
        return out * inputs * taps + 2 * out

    layer = normed(128, 64, 3) + normed(128, 80) + normed(128, 64)
    flow = normed(64, 1) + 10 * layer - normed(128, 64) + normed(64, 64) + 64 * 2 + 2
    upsampler = 2 * (3 * 32 + 1 + 1)
    model = ParallelWaveNet.from_preset("clarinet")
    assert sum(p.numel() for p in model.parameters()) == 6 * flow + upsampler


def test_flows_are_applied_in_the_order_of_the_configuration():
    model = ParallelWaveNet(flows=(1, 2, 3), channels=4)
    assert [len(flow.conditioner.layers) for flow in model.flows()] == [1, 2, 3]


def test_the_flow_keeps_the_bijector_contract():
    mel = MelConfig(hop_length=8, n_fft=16, win_length=16, n_mels=3, f_max=8000.0)
    model = ParallelWaveNet(flows=(2, 2), channels=4, kernel_size=2, mel=mel)
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 1, 16, generator=generator), torch.randn(2, 3, 2, generator=generator)
    check_bijector(model.flow.bijector, x, context)


def naive_draw(model, z, mel):
    """Sample by sample and flow by flow, the formula of ClariNet's section 3.1."""
    c = model.encoder(mel)
    for flow in model.flows():
        new = torch.empty_like(z)
        for t in range(z.shape[-1]):
            shift, raw = flow.conditioner(z[..., : t + 1], c[..., : t + 1])[:, :, 0, t].unbind(1)
            log_scale = raw if model.config.scale == "exp" else 5 * torch.tanh(raw / 5)
            new[:, 0, t] = z[:, 0, t] * log_scale.exp() + shift
        z = new
    return z


@pytest.mark.parametrize("name", ["gaussian", "logistic, exp"])
def test_a_draw_is_the_papers(name):
    mel = MelConfig(hop_length=8, n_fft=16, win_length=16, n_mels=3, f_max=8000.0)
    model = student(mel=mel, **VARIANTS[name]).double()
    context = torch.randn(2, 3, 3, dtype=torch.float64) - 9
    z = noise(model, frames=3)
    with torch.no_grad():
        torch.testing.assert_close(model.vocode(context, z=z), naive_draw(model, z, context)[:, 0])


@pytest.mark.parametrize("name", VARIANTS)
def test_moments_are_those_of_the_flow(name):
    model = student(**VARIANTS[name]).double()
    mel = mels().double()
    z = noise(model)
    found = model.sample_with_moments(z, mel)
    x, log_det = model.layers.inverse(z, mel)
    torch.testing.assert_close(found.x, x)
    torch.testing.assert_close(found.location + found.log_scale.exp() * z, x)
    torch.testing.assert_close(found.log_scale.sum((1, 2)), log_det)
    # The log-density of a Gaussian (logistic) with these moments, from torch, is the flow's.
    if model.config.base == "gaussian":
        by_torch = torch.distributions.Normal(found.location, found.log_scale.exp()).log_prob(x)
    else:
        scale = found.log_scale.exp()
        u = (x - found.location) / scale
        by_torch = -u - 2 * torch.log1p((-u).exp()) - found.log_scale
    torch.testing.assert_close(by_torch.sum((1, 2)), model.flow.base.log_prob(z) - log_det)


@pytest.mark.parametrize("name", ["gaussian", "logistic, exp"])
def test_moments_hold_over_many_draws_of_one_sample(name):
    model, t, draws = student(std=0.2, **VARIANTS[name]), 40, 4000
    z, mel = noise(model, 1, 1)[..., : t + 1], mels(1, 1)
    many = z.repeat(draws, 1, 1)
    many[:, 0, t] = model.flow.base.sample((draws,), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        moments = model.sample_with_moments(many, mel.expand(draws, -1, -1))
    location, scale = moments.location[0, 0, t].item(), moments.log_scale[0, 0, t].exp().item()
    assert moments.location[:, 0, t].std() < 1e-5 * scale  # it is not a function of z_t
    unit = 1.0 if model.config.base == "gaussian" else math.pi / math.sqrt(3)
    found = moments.x[:, 0, t]
    assert found.mean().item() == pytest.approx(location, abs=4 * unit * scale / math.sqrt(draws))
    assert found.std().item() == pytest.approx(unit * scale, rel=0.06)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("folded", [False, True])
def test_chunks_and_padding_change_nothing(name, folded):
    model, mel = student(**VARIANTS[name]), mels(3, 9)
    model = model.for_inference() if folded else model
    z, lengths = noise(model, 3, 9), torch.tensor([9, 4, 1])
    together = model.vocode(mel, z=z, lengths=lengths)
    torch.testing.assert_close(model.vocode(mel, z=z, lengths=lengths, chunk=2), together, atol=1e-5, rtol=1e-4)
    for i, n in enumerate(lengths.tolist()):
        alone = model.vocode(mel[i : i + 1, :, :n], z=z[i : i + 1, :, : n * 256])
        torch.testing.assert_close(together[i, : n * 256], alone[0], atol=1e-5, rtol=1e-4)
        assert not together[i, n * 256 :].any()


def test_chunks_reach_as_far_back_as_the_layers():
    """A stack so deep that its reach spans frames: with less context before a chunk the result would differ."""
    model, mel = student(flows=(8, 8), std=0.3), mels(1, 14)
    z = noise(model, 1, 14)
    assert model.reach[0] > 4
    torch.testing.assert_close(model.vocode(mel, z=z, chunk=3), model.vocode(mel, z=z), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("processor", ["AVX512", "AVX2"])
def test_block_by_block_it_draws_what_one_pass_does(name, folded, processor, monkeypatch):
    model, mel = student(**VARIANTS[name]), mels(2, 7)
    z, sizes = noise(model, 2, 7), []
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    kind = CompiledStream if processor == "AVX512" else WaveNetStream
    push = kind.push
    with torch.no_grad():
        whole, _ = model.flow.bijector.inverse(z, mel)
    model = model.for_inference() if folded else model
    monkeypatch.setattr(kind, "push", lambda self, x, c: sizes.append(x.shape[-1]) or push(self, x, c))
    monkeypatch.setattr("waveflow.models.parallel_wavenet._BLOCK", 3 * 256 * model.config.channels)
    torch.testing.assert_close(model.vocode(mel, z=z), whole[:, 0], atol=1e-5, rtol=1e-4)
    assert sizes == [n * 256 for n in (3, 3, 1) for _ in model.config.flows]


def test_pytorch_has_one_thread_while_compiled_layers_share_the_work(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    seen, write = [], CompiledLayers.inputs
    note = lambda self, *sizes: seen.append((torch.get_num_threads(), len(self._work))) or write(self, *sizes)  # noqa: E731
    monkeypatch.setattr(CompiledLayers, "inputs", note)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for model in (student(), WaveGlow(channels=8, layers=2, flows=2, early_every=0)):
            model.for_inference().vocode(mels(1, 2))
            assert set(seen) == {(1, 2)} and torch.get_num_threads() == 2
            seen.clear()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("upsampler", ["linear", "transposed"])
def test_autocast_and_another_default_device_do_not_matter(upsampler, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    fast, mel = student(upsampler=upsampler).for_inference(), mels()
    z = noise(fast)
    expected = fast.vocode(mel, z=z)
    with torch.device("meta"):
        assert torch.equal(fast.vocode(mel, z=z), expected)
    with torch.autocast("cpu", torch.bfloat16):
        found = fast.vocode(mel, z=z)
    assert (found - expected).square().mean().sqrt() < 0.03 * expected.std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_made_for_inference_it_draws_the_same(dtype):
    model, mel = student(), mels()
    z = noise(model)
    expected, found = model.vocode(mel, z=z), model.for_inference(dtype).vocode(mel, z=z)
    tolerance = 1e-5 if dtype == torch.float32 else 0.03 * expected.std().item()
    assert (found - expected).square().mean().sqrt().item() < tolerance


@pytest.mark.parametrize("name", ["gaussian", "logistic, exp", "whitened"])
def test_the_density_of_given_data_is_that_of_the_draw(name, caplog):
    model, mel = student(**VARIANTS[name]), mels(2, 1)
    with torch.no_grad():
        x, log_prob = model.flow.sample_with_log_prob((), mel, generator=torch.Generator().manual_seed(3))
        with caplog.at_level(logging.WARNING, "waveflow"):
            found = model.log_prob(x[:, 0], mel)
        assert "256 samples one after the other, in each of 2 flows" in caplog.text
        torch.testing.assert_close(found, log_prob, rtol=1e-4, atol=0.05)
        for flow in model.flows():
            flow.solver = Jacobi(tolerance=1e-6)
        torch.testing.assert_close(model.log_prob(x[:, 0], mel), log_prob, rtol=1e-4, atol=0.05)


def test_a_fresh_student_is_noise_of_the_initial_scale():
    for fields in ({"initial_scale": 0.05}, {"initial_scale": 1.0}, {"initial_scale": 0.02, "scale": "exp"}):
        model = ParallelWaveNet(**{**SMALL, **fields})
        with torch.no_grad():
            moments = model.sample_with_moments(noise(model), mels())
        torch.testing.assert_close(moments.log_scale.exp(), torch.full_like(moments.x, fields["initial_scale"]))
        assert not moments.location.any()


def test_a_checkpoint_gives_the_same_student(tmp_path):
    model, mel = student(whiten=True, frozen_encoder=True), mels()
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    z = noise(model)
    assert torch.equal(loaded.vocode(mel, z=z), model.vocode(mel, z=z))
    assert not any(p.requires_grad for p in loaded.encoder.parameters())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flows": ()}, "flows of at least 1 layer"),
        ({"flows": (3, 0)}, "flows of at least 1 layer"),
        ({"base": "uniform"}, 'base "gaussian" or "logistic"'),
        ({"initial_scale": 0.0}, "positive initial_scale"),
        ({"initial_scale": 1e-3, "scale": "gentle"}, "within e.*2, which"),
        ({"scale": "sigmoid"}, "scale"),
        ({"cycle": 31}, "cycle of 0 ... 30"),
    ],
)
def test_bad_configurations_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        ParallelWaveNet(**{**SMALL, **fields})


def test_what_cannot_teach_is_refused():
    with pytest.raises(InputError, match="a WaveNet with an upsampler of mels as teacher, got a WaveFlow"):
        ParallelWaveNet.from_teacher(WaveFlow.from_preset("tiny"))
