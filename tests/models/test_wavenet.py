"""WaveNet as its users call it: one likelihood seen in several ways, and samplers that agree."""

import copy
import logging
import math

import pytest
import torch
from torch.distributions import Normal

from waveflow.audio import MelConfig, MelMatcher
from waveflow.bijectors.solvers import Sequential
from waveflow.errors import InputError
from waveflow.models import WaveNet, load_model
from waveflow.models import wavenet as wavenet_module
from waveflow.models.wavenet_graph import Stretch, sample_by_stretches
from waveflow.models.wavenet_sampling import FrameContext, find_sampler
from waveflow.testing import check_bijector

MEL = MelConfig(n_mels=8, n_fft=128, win_length=128, hop_length=64)
TINY = {
    "mel": MEL,
    "layers": 4,
    "cycle": 2,
    "channels": 8,
    "first_kernel": 4,
    "upsampler": "linear",
    "context_channels": 6,
}
WHITEN = {"whiten": True, "whiten_order": 16}
KINDS = {
    "gaussian": {},
    "whitened": WHITEN,
    "whitened, speakers": {**WHITEN, "speakers": 3},
    "logistics": {"head": "logistics", "components": 3, **WHITEN},
    "mol": {"head": "mol", "scaled": True, "kernel_size": 3},
    "softmax": {"head": "softmax"},
    "transposed": {"upsampler": "transposed", "kernel_size": 3},
    "without mel": {"upsampler": "none"},
    "speakers alone": {"upsampler": "none", "speakers": 2},
}


def trained(model, std=0.1):
    """Away from the start, as training moves a model."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(std * torch.randn(p.shape, generator=generator))
    return model


def wavenet(kind="gaussian", **fields):
    return trained(WaveNet(**{**TINY, **KINDS[kind], **fields}))


def example(batch=3, frames=2, dtype=torch.float32, n_mels=8, hop=64):
    generator = torch.Generator().manual_seed(9)
    waveform = 0.1 * torch.randn(batch, frames * hop, generator=generator)
    return waveform.to(dtype), (torch.randn(batch, n_mels, frames, generator=generator) - 5).to(dtype)


def voices(model, batch=3):
    return (
        list(range(batch - 1, -1, -1))
        if model.config.speakers >= batch
        else [1] * batch
        if model.config.speakers
        else None
    )


def noise(model, batch=3, frames=2):
    return model.draw_latent(frames, batch, 1.0, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("preset", WaveNet.PRESETS)
def test_presets_give_densities(preset):
    model = WaveNet.from_preset(preset)
    waveform, mel = example(1, n_mels=80, hop=256)
    assert model.log_prob(waveform, mel).isfinite().all()
    assert model.stack.layers[-1].gates.dilation[0] == 2 ** (model.config.cycle - 1)


def test_the_presets_are_the_published_ones():
    gaussian, mol = WaveNet.from_preset("gaussian"), WaveNet.from_preset("mol")
    assert gaussian.stack.reach == 32 + 2 * 1023
    assert mol.stack.reach == 1 + 4 * 2 * 63 and mol._head.values == 65536 and mol._head.params == 30
    assert WaveNet.from_preset("softmax").stack.reach == 1 + 3 * 1023


def test_the_gaussian_head_and_the_flow_are_one():
    """The network's mean and log std as a Gaussian of each sample, and the flow: one likelihood, the same samples."""
    model = wavenet().double()
    waveform, mel = example(dtype=torch.float64)
    mean, log_std = model.stack(waveform[:, None], model.encoder(mel)).unbind(1)
    expected = Normal(mean, log_std.clamp_min(-9).exp()).log_prob(waveform[:, None]).sum((1, 2))
    torch.testing.assert_close(model.log_prob(waveform, mel), expected, rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(model.flow.log_prob(waveform[:, None], mel), expected, rtol=1e-10, atol=1e-8)

    z = noise(model, 3, 1)
    x = torch.zeros_like(z)
    with torch.no_grad():
        for t in range(64):
            mean, log_std = model.stack(x, model.encoder(mel[..., :1]))[..., t].unbind(1)
            x[..., t] = mean + log_std.clamp_min(-9).exp() * z[..., t]
    by_flow, _ = model.flow.bijector.inverse(z, mel[..., :1])
    torch.testing.assert_close(by_flow, x, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(model.vocode(mel[..., :1], z=z), x[:, 0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["gaussian", "logistics", "whitened, speakers"])
def test_is_a_bijector(kind):
    mel_config = MelConfig(n_mels=5, n_fft=32, win_length=32, hop_length=8)
    fields = {"mel": mel_config, "whiten_block": 4, "whiten_order": 3, "layers": 2}
    model = WaveNet(**{**TINY, **KINDS[kind], **fields})
    mel = torch.randn(2, 5, 2)
    check_bijector(model.flow.bijector, 0.3 * torch.randn(2, 1, 16), model._with_speaker(mel, voices(model, 2)), 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_samplers_agree(kind, monkeypatch):
    model = wavenet(kind).double()
    _, mel = example(dtype=torch.float64)
    z, speaker = noise(model), voices(model)
    expected = model.vocode(mel, z=z, method="full", speaker=speaker)
    assert expected.std() > 1e-4
    for method in ("incremental", "jacobi", "kernel"):
        for chunk in (None, 1):
            found = model.vocode(mel, z=z, method=method, chunk=chunk, speaker=speaker)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, msg=f"{method}, chunk={chunk}")

    def by_stretches(task):
        stretch = Stretch(task)
        return sample_by_stretches(task, stretch, stretch.run)

    monkeypatch.setattr(wavenet_module, "find_sampler", lambda *_: by_stretches)  # what a CUDA graph records
    torch.testing.assert_close(model.vocode(mel, z=z, chunk=1, speaker=speaker), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel_size", [1, 2, 3])
def test_stretches_agree_with_long_dilations_and_first_kernels(kernel_size, monkeypatch):
    model = wavenet(layers=9, cycle=0, first_kernel=40, kernel_size=kernel_size).double()
    _, mel = example(2, 8, torch.float64)
    z = noise(model, 2, 8)
    expected = model.vocode(mel, z=z, method="incremental")

    def by_stretches(task):
        stretch = Stretch(task)
        stretch.run()
        stretch.forget()  # as after a recording
        return sample_by_stretches(task, stretch, stretch.run)

    monkeypatch.setattr(wavenet_module, "find_sampler", lambda *_: by_stretches)
    torch.testing.assert_close(model.vocode(mel, z=z, chunk=3), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_padded_batches_come_out_as_if_alone(kind):
    model = wavenet(kind).double()
    _, mel = example(dtype=torch.float64)
    z, speaker = noise(model), voices(model)
    together = model.vocode(mel, z=z, lengths=torch.tensor([2, 1, 0]), chunk=1, speaker=speaker, method="incremental")
    alone = model.vocode(mel[1:2, :, :1], z=z[1:2, :, :64], speaker=speaker and speaker[1:2], method="incremental")
    torch.testing.assert_close(together[1:2, :64], alone, rtol=1e-9, atol=1e-10)
    assert not together[1, 64:].any() and not together[2].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_for_inference_is_the_same(kind):
    model = wavenet(kind).double()
    waveform, mel = example(dtype=torch.float64)
    speaker = voices(model)
    fast = model.for_inference(torch.float64)
    expected = model.log_prob(waveform, mel, speaker)
    torch.testing.assert_close(fast.log_prob(waveform, mel, speaker), expected, rtol=1e-9, atol=1e-8)
    z = noise(model)
    sound = model.vocode(mel, z=z, speaker=speaker, method="incremental")
    torch.testing.assert_close(fast.vocode(mel, z=z, speaker=speaker), sound, rtol=1e-9, atol=1e-9)
    assert "input" in dict(model.stack.named_children()) and not hasattr(fast.stack, "input")
    low = model.float().for_inference(torch.bfloat16).log_prob(waveform.float(), mel.float(), speaker)
    assert (low - expected).abs().max() < 0.05 * waveform.shape[1]
    with pytest.raises(InputError, match="got a copy made for inference"):
        fast.for_inference()


@pytest.mark.parametrize("kind", ["mol", "softmax"])
def test_a_discrete_model_is_its_distribution(kind):
    model = wavenet(kind).double()
    waveform, mel = example(dtype=torch.float64)
    codes = model.quantiser.encode(waveform)[:, None]
    width = model.quantiser.log_width(codes.double()).sum((1, 2))
    torch.testing.assert_close(model.log_prob(waveform, mel), model.distribution.log_prob(codes, mel) - width)
    again = model.quantiser.decode(codes.double())[:, 0]  # the density is that of the cell
    torch.testing.assert_close(model.log_prob(again, mel), model.log_prob(waveform, mel))
    sampled = model.distribution.solve(noise(model), mel, solver=Sequential()).x
    torch.testing.assert_close(model.vocode(mel, z=noise(model)), model.quantiser.decode(sampled)[:, 0])


def test_waveforms_need_not_end_with_a_frame():
    for kind in ("gaussian", "mol", "whitened"):
        model = wavenet(kind).double()
        waveform, mel = example(dtype=torch.float64)
        parts = [model.log_prob(waveform[:, :n], mel) for n in (70, 71)]
        assert all(p.isfinite().all() for p in parts) and (parts[0] != parts[1]).all()


@pytest.mark.parametrize("kind", ["gaussian", "mol"])
def test_temperature_zero_is_not_random(kind):
    model = wavenet(kind)
    _, mel = example()
    cold = [model.vocode(mel, temperature=0.0) for _ in range(2)]
    assert torch.equal(*cold)
    draws = [model.vocode(mel, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[1], draws[2])


def test_speakers_differ_and_are_learnt():
    model = wavenet("whitened, speakers")
    waveform, mel = example()
    a, b = model.log_prob(waveform, mel, [0, 0, 0]), model.log_prob(waveform, mel, torch.tensor([1, 0, 2]))
    assert (a != b).tolist() == [True, False, True]
    model(waveform, mel, [0, 1, 2]).sum().backward()
    assert model.encoder.embedding.weight.grad.any()


def test_checkpoints_come_back(tmp_path):
    for kind in ("whitened, speakers", "mol"):
        model = wavenet(kind)
        model.save_pretrained(tmp_path / kind)
        waveform, mel = example()
        again = load_model(tmp_path / kind)
        assert again.config == model.config
        assert torch.equal(again.log_prob(waveform, mel, voices(model)), model.log_prob(waveform, mel, voices(model)))


def test_log_scales_at_their_floor_are_counted_and_reported(caplog):
    waveform, mel = example()
    for kind, channels in (("gaussian", [1]), ("logistics", [6, 7, 8]), ("mol", range(20, 30))):
        model = wavenet(kind)
        assert model.floor_share(waveform, mel) == 0.0
        with caplog.at_level(logging.WARNING, "waveflow"):
            model.vocode(mel)
        assert not caplog.records
        with torch.no_grad():
            model.stack.output.bias[list(channels)] -= 60
        assert model.floor_share(waveform, mel) == 1.0
        assert model.log_prob(waveform, mel).isfinite().all()
        with caplog.at_level(logging.WARNING, "waveflow"):
            model.vocode(mel, temperature=0.0)
        assert "100% of the log scales" in caplog.text
        caplog.clear()
    assert wavenet("softmax").floor_share(waveform, mel) == 0.0


def test_denoiser_is_quiet_and_helps_with_speakers(caplog):
    model = wavenet("whitened, speakers")
    _, mel = example(1, 9)
    with caplog.at_level(logging.WARNING, "waveflow"):
        assert model.denoiser(2)(torch.zeros(1, 4096), 0.1).shape == (1, 4096)
        assert model.vocode(mel, denoise=0.1, speaker=[1]).shape == (1, 576)
    assert not caplog.records


def test_copies_are_matched_to_their_mels():
    model = wavenet("whitened, speakers")
    _, mel = example(1, 9)
    z = noise(model, 1, 9)
    plain, matched = (model.vocode(mel, z=z, speaker=[1], match=rounds) for rounds in (0, 2))
    torch.testing.assert_close(matched, MelMatcher(model.mel_config)(plain, mel, 2))
    assert not torch.allclose(matched, plain, atol=1e-2)


@pytest.mark.parametrize("kind", ["mol", "whitened"])
def test_what_an_interrupted_synthesis_made_is_kept_on_request(kind, monkeypatch, caplog):
    model = wavenet(kind)
    _, mel = example(2, 4)
    z = noise(model, 2, 4)
    whole = model.vocode(mel, z=z, chunk=1)

    def interrupted(after):
        def sampler(task):
            for i, piece in enumerate(find_sampler("auto", task.z)(task)):
                if i == after:
                    raise KeyboardInterrupt
                yield piece

        return lambda *_: sampler

    monkeypatch.setattr(wavenet_module, "find_sampler", interrupted(3))
    with pytest.raises(KeyboardInterrupt):
        model.vocode(mel, z=z, chunk=1)
    part = model.vocode(mel, z=z, chunk=1, partial=True)
    assert torch.equal(part, whole[:, :192]) and "interrupted after 3 of 4 frames" in caplog.text
    part = model.vocode(mel, z=z, chunk=1, partial=True, lengths=torch.tensor([4, 1]))
    assert part.shape == (2, 192) and not part[1, 64:].any()
    monkeypatch.setattr(wavenet_module, "find_sampler", interrupted(0))
    with pytest.raises(KeyboardInterrupt):  # nothing was made
        model.vocode(mel, z=z, chunk=1, partial=True)


def test_progress_counts_samples(capsys):
    _, mel = example(1)
    wavenet().vocode(mel, progress=True)
    assert "128/128" in capsys.readouterr().err


def test_context_is_made_in_parts():
    model = wavenet("transposed")
    mel = torch.randn(2, 8, 9)
    context = FrameContext(model.encoder, mel, 64, 2)
    whole = model.encoder(mel)
    for start, stop in ((0, 16), (125, 132), (128, 350), (350, 362), (560, 620)):
        torch.testing.assert_close(context(start, stop), whole[..., start:stop], rtol=1e-5, atol=1e-5)


def test_learns_in_few_steps():
    torch.manual_seed(0)
    waveform = torch.sin(torch.arange(512) * 0.2)[None] * 0.5 + 0.01 * torch.randn(2, 512)
    mel = torch.full((2, 8, 8), -5.0)
    for head in ("gaussian", "logistics", "mol", "softmax"):
        model = WaveNet(**{**TINY, "head": head, "components": 3})
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        losses = []
        for _ in range(30):
            loss = -model(waveform, mel).mean() / 512
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 0.3, head


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda m, mel: m.vocode(mel, method="fast"), 'method out of "auto", "incremental".*got \'fast\''),
        (lambda m, mel: m.vocode(mel, method="graph"), "on CUDA devices only, the model is on cpu"),
        (lambda m, mel: m.vocode(mel, temperature=-1.0), "temperature of at least 0, got -1"),
        (lambda m, mel: m.vocode(mel, z=torch.zeros(3, 2, 64)), r"z of shape \(3, 1, 128\), got \(3, 2, 64\)"),
        (lambda m, mel: m.vocode(mel, speaker=[0, 0, 0]), "one voice and no speakers"),
        (lambda m, mel: m.vocode(mel, lengths=torch.tensor([1, 2, 3])), "lengths within 0 ... 2"),
        (lambda m, mel: m.vocode(mel, chunk=0), "at least 1 frame"),
        (lambda m, mel: m.vocode(mel[:, :7]), "8 "),
        (lambda m, mel: m.log_prob(torch.zeros(3, 129), mel), r"mels \(3, 8, 3 or more\)"),
        (lambda m, mel: m.log_prob(torch.zeros(2, 128), mel), r"mels \(2, 8, 2 or more\)"),
        (lambda m, mel: m.for_inference(torch.int8), "got torch.int8"),
    ],
)
def test_bad_calls_are_named(call, line):
    with pytest.raises(InputError, match=line):
        call(wavenet(), example()[1])


@pytest.mark.parametrize("speaker", [None, [0, 1], [0, 1, 3], [-1, 0, 0], [0.5, 0, 0]])
def test_speakers_that_there_are_not_are_refused(speaker):
    with pytest.raises(InputError, match=r"expects 3 speakers out of 0 ... 2, got"):
        wavenet("whitened, speakers").vocode(example()[1], speaker=speaker)


def test_a_generator_elsewhere_is_refused():
    model, mel = wavenet(), example()[1]
    elsewhere = copy.copy(model)
    with pytest.raises(InputError, match="expects a generator on meta"):
        elsewhere.to("meta").vocode(mel, generator=torch.Generator())


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"head": "student"}, 'head "gaussian" or "logistics"'),
        ({"upsampler": "cubic"}, "upsampler"),
        ({"layers": 0}, "layers of at least 1"),
        ({"first_kernel": 0}, "first_kernel of at least 1"),
        ({"cycle": -1}, "at least 0, got -1 and 0"),
        ({"cycle": 40}, "at most 30 layers, got 40"),
        ({"speakers": -2}, "got 2 and -2"),
        ({"head": "mol", "whiten": True}, "a residual has no fixed values"),
    ],
)
def test_bad_configurations_are_named(fields, line):
    with pytest.raises(InputError, match=line):
        WaveNet(**{**TINY, **fields})


def test_the_density_is_on_the_range():
    """Bins of 16 bits have about as many nats as 16 ln 2 less than an untrained model that thinks all equal."""
    model = WaveNet(**{**TINY, "head": "softmax"})
    waveform, mel = example()
    codes = model.quantiser.encode(waveform).double()
    expected = -math.log(256) * 128 - model.quantiser.log_width(codes).sum(1)
    torch.testing.assert_close(model.log_prob(waveform, mel).double(), expected, rtol=1e-5, atol=1e-3)
