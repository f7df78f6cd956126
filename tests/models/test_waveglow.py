"""WaveGlow as its users call it."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from waveflow.audio import MelConfig, MelMatcher
from waveflow.errors import InputError
from waveflow.models import WaveGlow, load_model, read_config
from waveflow.testing import check_bijector

WHITEN = {"whiten": True, "whiten_correction": 4, "upsampler": "linear"}
SMALL = {"channels": 8, "layers": 3, "flows": 6, "early_every": 2, "early_channels": 2}


def trained(model, std=0.05):
    """Away from the start, as training moves a model."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(std * torch.randn(p.shape, generator=torch.Generator().manual_seed(4)))
    return model


def waveglow(**fields):
    return trained(WaveGlow(**{**SMALL, **fields}))


def example(batch=2, frames=6, surplus=0):
    generator = torch.Generator().manual_seed(9)
    waveform = 0.1 * torch.randn(batch, frames * 256, generator=generator)
    return waveform, torch.randn(batch, 80, frames + surplus, generator=generator) - 5


@pytest.mark.parametrize(
    ("preset", "numbers"), [("ljspeech", 87_879_272), ("ljspeech-64", 17_595_752), ("ljspeech-512", 268_294_760)]
)
def test_reference_presets_have_the_reference_size(preset, numbers):
    config = WaveGlow.Config(**WaveGlow.PRESETS[preset])
    n = [config.channels_of_level(k // 4) for k in range(12)]
    c, context = config.channels, 80 * 8

    def normed(out, inputs, taps=1):
        return out * inputs * taps + 2 * out

    network = sum(
        normed(c, m // 2)
        + 8 * (normed(2 * c, context) + normed(2 * c, c, 3))
        + 7 * normed(2 * c, c)
        + normed(c, c)
        + m * c
        + m
        + m * m
        for m in n
    )
    assert network + 80 * 80 * 1024 + 80 == numbers
    if preset == "ljspeech-64":
        assert sum(p.numel() for p in WaveGlow.from_preset(preset).parameters()) == numbers


@pytest.mark.parametrize(("preset", "most"), [("tiny", 0.9e6), ("small", 7.5e6), ("squeeze", 8e6)])
def test_small_presets_are_small(preset, most):
    assert sum(p.numel() for p in WaveGlow.from_preset(preset).parameters()) <= most


def test_the_flow_keeps_the_bijector_contract():
    mel = MelConfig(hop_length=16, n_fft=32, win_length=32, n_mels=3, f_max=8000.0)
    model = WaveGlow(channels=4, layers=2, flows=3, early_every=2, early_channels=2, group=8, mel=mel)
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 1, 32, generator=generator), torch.randn(2, 3, 2, generator=generator)
    check_bijector(model.flow.bijector, x, context)


def naive_log_prob(model, waveform, mel):
    """The paper's section 2 step by step, with plain convolutions."""
    c = model.config
    up = F.conv_transpose1d(mel, model.encoder.convolution.weight, model.encoder.convolution.bias, stride=256)
    up = up[..., : waveform.shape[1]]
    context = up.unfold(2, 8, 8).permute(0, 1, 3, 2).flatten(1, 2)
    x, latents, total = waveform.unfold(1, 8, 8).transpose(1, 2), [], 0
    steps = [part for level in model.flow.bijector[1].bijector.levels for part in level]
    for k in range(c.flows):
        if k and k % c.early_every == 0:
            latents.append(x[:, : c.early_channels])
            x = x[:, c.early_channels :]
        matrix, network = steps[2 * k].weight, steps[2 * k + 1].conditioner
        x = F.conv1d(x, matrix[:, :, None])
        total = total + x.shape[-1] * torch.linalg.det(matrix).abs().log()
        a, b = x.chunk(2, 1)
        shift, log_scale = network(a, context).chunk(2, 1)
        x = torch.cat([a, b * log_scale.exp() + shift], 1)
        total = total + log_scale.sum((1, 2))
    z = torch.cat([*latents, x], 1)
    return total + (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum((1, 2))


def test_log_prob_is_the_papers():
    model, (waveform, mel) = waveglow().double(), example()
    found = model.log_prob(waveform.double(), mel.double())
    torch.testing.assert_close(found, naive_log_prob(model, waveform.double(), mel.double()))


def test_surplus_frames_are_ignored_and_too_few_refused():
    model, (waveform, mel) = waveglow(), example(surplus=1)
    assert torch.equal(model.log_prob(waveform, mel), model.log_prob(waveform, mel[..., :6]))
    with pytest.raises(InputError, match=r"mels \(2, 80, 6 or more\).*got \(2, 80, 5\)"):
        model.log_prob(waveform, mel[..., :5])
    with pytest.raises(InputError, match="T divisible by 8"):
        model.log_prob(waveform[:, :-1], mel)


@pytest.mark.parametrize(
    "fields", [{}, {"upsampler": "linear", "scale": "tanh_exp", "actnorm": True}, {"separable": True}, WHITEN]
)
def test_vocode_inverts_the_latent(fields):
    model, (waveform, mel) = waveglow(**fields), example()
    z, _ = model.flow.bijector(waveform[:, None], mel)
    assert z.shape == (2, *model.latent_shape(6))
    torch.testing.assert_close(model.vocode(mel, z=z), waveform, atol=1e-4, rtol=0)
    torch.testing.assert_close(model.for_inference().vocode(mel, z=z), waveform, atol=1e-4, rtol=0)


def test_a_draw_depends_on_generator_and_temperature_alone():
    model, (_, mel) = waveglow(temperature=0.5), example()

    def draw(**kwargs):
        return model.vocode(mel, generator=torch.Generator().manual_seed(3), **kwargs)

    assert torch.equal(draw(), draw(temperature=0.5)) and not torch.equal(draw(), draw(temperature=0.6))
    z = 0.5 * torch.randn(2, *model.latent_shape(6), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(draw(), model.vocode(mel, z=z))
    assert torch.equal(model.vocode(mel, temperature=0.0), model.vocode(mel, z=torch.zeros_like(z)))


@pytest.mark.parametrize("fields", [{}, {"upsampler": "linear"}, {"separable": True, "cycle": 2}, WHITEN])
@pytest.mark.parametrize("folded", [False, True])
def test_ragged_batch_equals_each_alone(fields, folded):
    model, (_, mel) = waveglow(**fields), example(3, 9)
    model = model.for_inference() if folded else model
    z, lengths = torch.randn(3, *model.latent_shape(9)), torch.tensor([9, 4, 1])
    together = model.vocode(mel, z=z, lengths=lengths)
    for i, n in enumerate(lengths.tolist()):
        alone = model.vocode(mel[i : i + 1, :, :n], z=z[i : i + 1, :, : n * 32])
        torch.testing.assert_close(together[i, : n * 256], alone[0], atol=1e-5, rtol=1e-4)
        assert not together[i, n * 256 :].any()


@pytest.mark.parametrize("fields", [{}, {"upsampler": "linear"}, {"separable": True}, WHITEN])
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_chunks_equal_the_whole(fields, chunk):
    model, (_, mel) = waveglow(**fields).double(), example(2, 23)
    z = torch.randn(2, *model.latent_shape(23), dtype=torch.float64)
    assert sum(model.reach) < 18  # shorter than the mel, or nothing is tested
    whole, lengths = model.vocode(mel, z=z), torch.tensor([23, 12])
    torch.testing.assert_close(model.vocode(mel, z=z, chunk=chunk), whole, atol=1e-10, rtol=0)
    ragged = model.vocode(mel, z=z, chunk=chunk, lengths=lengths)
    torch.testing.assert_close(ragged, model.vocode(mel, z=z, lengths=lengths), atol=1e-10, rtol=0)


@pytest.mark.parametrize("fields", [{}, {"upsampler": "linear"}])
def test_reach_is_not_too_short(fields):
    model = waveglow(**fields).double()
    mel = (torch.randn(1, 80, 31, dtype=torch.float64) - 5).requires_grad_()
    z = torch.randn(1, *model.latent_shape(31), dtype=torch.float64)
    model.flow.bijector.inverse(z, mel)[0][0, 0, 15 * 256 : 16 * 256].sum().backward()
    seen = mel.grad[0].abs().sum(0).nonzero()[:, 0] - 15
    before, after = model.reach
    assert -before <= seen.min() and seen.max() <= after < 15


def test_denoiser_takes_the_models_own_tone_away():
    model, (_, mel) = waveglow(), example(1, 90)
    plain = model.vocode(mel, temperature=0.0)
    denoised = model.vocode(mel, temperature=0.0, denoise=1.0)
    assert denoised.shape == plain.shape and denoised.norm() < plain.norm()
    silence = model.vocode(torch.zeros(1, 80, 88), temperature=0.0)
    assert model.denoiser()(silence, 1.0)[0, 1024:-1024].std() < 0.5 * silence[0, 1024:-1024].std()


def test_bfloat16_networks_leave_the_rest_in_float32():
    model, (_, mel) = waveglow(), example(1, 20)
    z = torch.randn(1, *model.latent_shape(20))
    fast = model.for_inference(torch.bfloat16)
    a, b = model.vocode(mel, z=z), fast.vocode(mel, z=z)
    assert b.dtype == torch.float32 and 0 < (a - b).norm() < 0.05 * a.norm()
    assert not any(p.requires_grad for p in fast.parameters()) and not fast.training
    assert all(t.dtype != torch.bfloat16 for n, t in fast.state_dict().items() if "conditioner" not in n)
    log_prob = fast.log_prob(*example())
    torch.testing.assert_close(log_prob, model.log_prob(*example()), rtol=0.01, atol=5)
    with pytest.raises(InputError, match=r"torch.float32 or torch.bfloat16, got torch.int8"):
        model.for_inference(torch.int8)


@pytest.mark.slow
def test_compiled_inference_is_the_same():
    model, (_, mel) = waveglow(), example(1, 8)
    z = torch.randn(1, *model.latent_shape(8))
    compiled = model.for_inference(compile=True).vocode(mel, z=z)
    torch.testing.assert_close(compiled, model.vocode(mel, z=z), atol=1e-5, rtol=1e-4)


def test_memory_invert_gives_the_gradients_of_store():
    waveform, mel = example()
    gradients = []
    for memory in ("store", "invert"):
        torch.manual_seed(0)
        model = waveglow(memory=memory).double()
        model.log_prob(waveform.double(), mel.double()).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-8 * gradients[0].norm()


def test_training_step_in_bfloat16_autocast_is_finite_everywhere():
    model, (waveform, mel) = waveglow(), example()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = -model.log_prob(waveform, mel).mean() / waveform.shape[1]
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    exact = -model.log_prob(waveform, mel).mean() / waveform.shape[1]
    assert loss.dtype == torch.float32 and abs(loss.item() - exact.item()) < 0.05


def test_save_and_load(tmp_path):
    model = waveglow(mel=MelConfig.from_preset("bigvgan-24k"))
    model.save_pretrained(tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["config.json", "model.safetensors"]
    for load in (WaveGlow.from_pretrained, load_model):
        twin = load(tmp_path / "a")
        assert twin.config == model.config and not twin.training
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    twin.save_pretrained(tmp_path / "b")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    name, fields = read_config(tmp_path / "a")
    assert name == "WaveGlow" and fields["mel"]["sample_rate"] == 24000


def test_whitening_presets_and_older_checkpoints(tmp_path):
    assert {name for name, fields in WaveGlow.PRESETS.items() if fields.get("whiten")} == {"tiny", "small", "squeeze"}
    waveglow().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    fields = {name: value for name, value in config["config"].items() if not name.startswith("whiten")}
    edit_config(tmp_path, config=fields)  # as saved before there was whitening
    assert not WaveGlow.from_pretrained(tmp_path).config.whiten


def test_whitening_is_part_of_the_density():
    model, (waveform, mel) = waveglow(**WHITEN).double(), example()
    waveform, mel = waveform.double(), mel.double()
    residual, log_det = model.whitening(waveform[:, None], mel)
    bare = WaveGlow(**SMALL, upsampler="linear").double()
    bare.flow.bijector.load_state_dict(model.flow.bijector[1].state_dict())
    torch.testing.assert_close(model.log_prob(waveform, mel), bare.log_prob(residual[:, 0], mel) + log_det)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no checkpoint here"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "config.json").write_text("{}"), "not a waveflow checkpoint"),
        (lambda f: edit_config(f, format_version=99), "has format version 99, this version of waveflow reads 1"),
        (lambda f: edit_config(f, model="WaveRNN"), "holds a 'WaveRNN'"),
        (lambda f: edit_config(f, config={"width": 3}), "has no field width"),
        (lambda f: (f / "model.safetensors").unlink(), r"no model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]), "truncated"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "truncated"),
        (lambda f: WaveGlow(**{**SMALL, "layers": 2}).save_pretrained(f / "x") or
         (f / "x/model.safetensors").rename(f / "model.safetensors"), "does not fit the configuration beside it"),
        (lambda f: WaveGlow(**{**SMALL, "channels": 4}).save_pretrained(f / "x") or
         (f / "x/model.safetensors").rename(f / "model.safetensors"), r"is \(4,\), expected \(8,\)|is \("),
    ],
)  # fmt: skip
def test_damaged_checkpoints_are_refused(tmp_path, damage, message):
    waveglow().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        WaveGlow.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_sources_that_are_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "file").write_text("")
    for source in (tmp_path / "nothing", tmp_path / "file", "./nowhere", "someone/nothing-at-all"):
        with pytest.raises(InputError):
            WaveGlow.from_pretrained(source)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WaveGlow.from_preset("huge"), "no preset 'huge', expected one of ljspeech"),
        (lambda: WaveGlow(width=3), "no field width"),
        (lambda: WaveGlow(group=24), "even group that divides the hop of 256, got 24"),
        (lambda: WaveGlow(flows=0), "flows of at least 1"),
        (lambda: WaveGlow(flows=20, early_every=4), "runs out of channels"),
        (lambda: WaveGlow(upsampler="nearest", **SMALL), '"transposed" or "linear"'),
        (lambda: WaveGlow(memory="less", **SMALL), 'memory "store" or "invert"'),
        (lambda: WaveGlow(**{**SMALL, **WHITEN, "whiten_order": 513}), "whiten_order of 1 to 512, half the FFT.*513"),
        (lambda: WaveGlow(**{**SMALL, **WHITEN, "whiten_correction": -1}), "whiten_correction of at least 0.*-1"),
        (lambda: WaveGlow(**{**SMALL, **WHITEN, "whiten_block": 48}), "whiten_block that divides the hop 256, got 48"),
        (lambda: waveglow().vocode(torch.zeros(1, 100, 4)), "80 bands"),
        (lambda: waveglow().vocode(torch.zeros(80, 4) - 4.5), r"mels \(B, 80, frames\), got \(80, 4\)"),
        (lambda: waveglow().vocode(torch.full((1, 80, 4), float("nan"))), "NaN"),
        (lambda: waveglow().vocode(torch.zeros(1, 80, 4) - 4.5, temperature=-1), "temperature of at least 0"),
        (lambda: waveglow().vocode(torch.zeros(1, 80, 4) - 4.5, z=torch.zeros(1, 8, 4)), r"\(1, 8, 128\), got"),
        (lambda: waveglow().vocode(torch.zeros(1, 80, 4) - 4.5, z=torch.zeros(1, 8, 128), temperature=1), "got both"),
        (lambda: waveglow().vocode(torch.zeros(1, 80, 4) - 4.5, lengths=torch.tensor([5])), "within 0 ... 4, got"),
        (lambda: waveglow().vocode(torch.zeros(1, 80, 4) - 4.5, chunk=0), "chunks of at least 1 frame"),
        (lambda: waveglow().vocode(torch.zeros(1, 80, 4) - 4.5, match=-1), "match, rounds of scaling, of at least 0"),
        (lambda: WaveGlow(match=-1, **SMALL), "match, rounds of scaling, of at least 0, got -1"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_non_finite_synthesis_is_said():
    model = waveglow()
    with torch.no_grad():
        for coupling in model.couplings():
            coupling.conditioner.output.bias.fill_(-300.0)
    with pytest.raises(FloatingPointError, match="not finite"):
        model.vocode(torch.zeros(1, 80, 4) - 4.5, temperature=1.0)


def test_ragged_items_are_denoised_as_if_alone():
    model, (_, mel) = waveglow(), example(2, 9)
    z = torch.randn(2, *model.latent_shape(9))
    together = model.vocode(mel, z=z, lengths=torch.tensor([9, 4]), denoise=1.0)
    alone = model.vocode(mel[1:, :, :4], z=z[1:, :, :128], denoise=1.0)
    torch.testing.assert_close(together[1, : 4 * 256], alone[0], atol=1e-5, rtol=1e-4)


def test_copies_are_matched_to_their_mels_as_if_alone():
    model, (_, mel) = waveglow(), example(2, 9)
    z = torch.randn(2, *model.latent_shape(9))
    plain = model.vocode(mel, z=z)
    matched = model.vocode(mel, z=z, match=2)
    torch.testing.assert_close(model.vocode(mel, z=z, match=2, chunk=2), matched, rtol=0, atol=1e-5)
    torch.testing.assert_close(matched, MelMatcher(model.mel_config)(plain, mel, 2))
    assert not torch.allclose(matched, plain, atol=1e-2)
    together = model.vocode(mel, z=z, lengths=torch.tensor([9, 4]), match=2)
    alone = model.vocode(mel[1:, :, :4], z=z[1:, :, :128], match=2)
    torch.testing.assert_close(together[1, : 4 * 256], alone[0], atol=1e-5, rtol=1e-4)
    assert not together[1, 4 * 256 :].any()
    short = model.vocode(mel[..., :2], z=z[..., :64], match=2)  # shorter than a frame
    torch.testing.assert_close(short, model.vocode(mel[..., :2], z=z[..., :64]))


def test_a_checkpoint_may_ask_for_matching(tmp_path):
    model, (_, mel) = waveglow(match=2), example(1, 9)
    model.save_pretrained(tmp_path)
    loaded, z = load_model(tmp_path), torch.randn(1, *model.latent_shape(9))
    torch.testing.assert_close(loaded.vocode(mel, z=z), model.vocode(mel, z=z, match=2))
    plain = loaded.vocode(mel, z=z, match=0)
    torch.testing.assert_close(MelMatcher(model.mel_config)(plain, mel, 2), model.vocode(mel, z=z))


def test_copies_made_for_inference_are_neither_saved_nor_folded_again(tmp_path):
    fast = waveglow().for_inference()
    for call in (lambda: fast.save_pretrained(tmp_path / "x"), fast.for_inference):
        with pytest.raises(InputError, match="made for inference"):
            call()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "fields",
    [{"scale": "softplus"}, {"kernel_size": 2}, {"early_every": -1}, {"early_channels": 1}, {"temperature": math.nan}],
)
def test_impossible_configurations_are_refused_where_they_are_read(tmp_path, fields):
    waveglow().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    edit_config(tmp_path, config={**config["config"], **fields})
    with pytest.raises(InputError, match=next(iter(fields))):
        WaveGlow.from_pretrained(tmp_path)


@pytest.mark.parametrize("fields", [{}, {"upsampler": "linear", "actnorm": True}, WHITEN])
def test_vmap_and_full_graph_compilation(fields):
    model, (waveform, mel) = waveglow(**fields), example()
    model.flow.initialize(waveform[:, None], mel)
    bijector, x = model.flow.bijector, waveform[:, None]
    expected = bijector(x, mel)
    compiled = torch.compile(bijector, fullgraph=True, backend="eager")(x, mel)
    mapped = torch.func.vmap(lambda item: bijector(item, mel))(torch.stack([x, 2 * x]))
    back = torch.func.vmap(lambda item: bijector.inverse(item, mel)[0])(mapped[0])
    torch.testing.assert_close(back[1], 2 * x, atol=1e-4, rtol=1e-4)
    for a, b, c in zip(expected, compiled, mapped, strict=True):
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(c[0], a, atol=1e-4, rtol=1e-4)
