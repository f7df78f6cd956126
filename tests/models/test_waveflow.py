"""WaveFlow as its users call it."""

import math

import pytest
import torch
import torch.nn.functional as F

from waveflow.audio import MelConfig
from waveflow.bijectors import Affine, Autoregressive, Permutation
from waveflow.errors import InputError
from waveflow.models import WaveFlow, load_model
from waveflow.models.waveflow_model import row_orders
from waveflow.networks import WaveFlowStack

WHITEN = {"whiten": True, "whiten_correction": 4, "upsampler": "linear"}
LINEAR = {"upsampler": "linear", "context_channels": 6, "scale": "tanh_exp"}
SMALL = {"channels": 6, "layers": 3, "flows": 4}


def trained(model, std=0.05):
    """Away from the start, as training moves a model."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(std * torch.randn(p.shape, generator=generator))
    return model


def waveflow(**fields):
    return trained(WaveFlow(**{**SMALL, **fields}))


def example(batch=2, frames=6, surplus=0):
    generator = torch.Generator().manual_seed(9)
    waveform = 0.1 * torch.randn(batch, frames * 256, generator=generator)
    return waveform, torch.randn(batch, 80, frames + surplus, generator=generator) - 5


@pytest.mark.parametrize(
    ("preset", "millions"),
    [("ljspeech-64", 5.91), ("ljspeech-96", 12.78), ("ljspeech-128", 22.25), ("ljspeech-256", 86.18)],
)
def test_presets_of_the_paper_have_its_size(preset, millions):
    config = WaveFlow.Config(**WaveFlow.PRESETS[preset])
    c = config.channels

    def normed(out, inputs, taps=1):
        return out * inputs * taps + 2 * out

    layer = normed(2 * c, c, 9) + normed(2 * c, 80) + normed(2 * c, c)
    flow = normed(c, 1) + 8 * layer - (normed(2 * c, c) - normed(c, c)) + 2 * c + 2
    upsampler = 2 * (3 * 32 + 2)
    assert math.floor((8 * flow + upsampler) / 1e4) / 100 == millions  # the paper cuts off
    if preset == "ljspeech-64":
        assert sum(p.numel() for p in WaveFlow.from_preset(preset).parameters()) == 8 * flow + upsampler


@pytest.mark.parametrize(("preset", "most"), [("tiny", 0.2e6), ("small", 1.2e6)])
def test_small_presets_are_small(preset, most):
    assert sum(p.numel() for p in WaveFlow.from_preset(preset).parameters()) <= most


def folded_context(model, mel, columns):
    """Upsampled by the plain transposed convolutions, sample t in row t mod h of column t / h."""
    x = mel[:, None]
    for stage in model.encoder.stages:
        x = F.leaky_relu(F.conv_transpose2d(x, stage.weight, stage.bias, stride=(1, 16), padding=(1, 8)), 0.4)
    height = model.group
    return torch.stack([x[:, 0, :, row::height][..., :columns] for row in range(height)], 2)


@pytest.mark.parametrize("permutation", ["a", "b"])
@torch.no_grad()
def test_log_prob_is_the_papers_with_rows_and_context_permuted(permutation):
    model, (waveform, mel) = waveflow(permutation=permutation, height=8).double(), example()
    waveform, mel = waveform.double(), mel.double()
    x = torch.stack([waveform[:, row::8] for row in range(8)], 1)
    context = folded_context(model, mel, x.shape[2])
    total = 0
    for k, flow in enumerate(model.flows()):
        network = WaveFlowStack(range(8), 2, SMALL["channels"], SMALL["layers"], 3, 80).double()
        network.load_state_dict(flow.conditioner.state_dict())
        x, log_det = Autoregressive(network, Affine("exp"))(x, context)
        reverse = Permutation.reverse(8)
        if permutation == "b" and k >= 2:
            reverse = Permutation(torch.tensor([3, 2, 1, 0, 7, 6, 5, 4]))
        (x, _), (context, _) = reverse(x), reverse(context.transpose(1, 2))
        context, total = context.transpose(1, 2), total + log_det
    expected = total + (-0.5 * x.square() - 0.5 * math.log(2 * math.pi)).sum((1, 2))
    torch.testing.assert_close(model.log_prob(waveform, mel), expected)


def test_the_first_row_of_each_flow_is_copied():
    model, (waveform, mel) = waveflow(permutation="a", flows=1), example()
    z, _ = model.flow.bijector(waveform[:, None], mel)
    assert torch.equal(z[:, 0], waveform[:, ::16]) and not torch.equal(z[:, 1], waveform[:, 1::16])


def test_orders_of_rows():
    down, up = list(range(8)), list(range(7, -1, -1))
    assert row_orders(8, 8, "a") == [down, up] * 4
    crossed = [3, 2, 1, 0, 7, 6, 5, 4]
    assert row_orders(8, 8, "b") == [down, up, down, up, down, crossed, down, crossed]


def test_surplus_frames_are_ignored_and_too_few_refused():
    model, (waveform, mel) = waveflow(), example(surplus=1)
    torch.testing.assert_close(model.log_prob(waveform, mel), model.log_prob(waveform, mel[..., :6]))
    part = waveform[:, : 5 * 256 + 64]
    assert model.log_prob(part, mel).isfinite().all()
    assert model.flow.inverse_error(part[:, None], mel[..., :6]).max() < 1e-5
    with pytest.raises(InputError, match=r"mels \(2, 80, 6 or more\).*got \(2, 80, 5\)"):
        model.log_prob(waveform, mel[..., :5])
    with pytest.raises(InputError, match="T divisible by 16"):
        model.log_prob(waveform[:, :-1], mel)


@pytest.mark.parametrize("fields", [{}, {"permutation": "a", "height": 32}, LINEAR, WHITEN])
def test_vocode_inverts_the_latent(fields):
    model, (waveform, mel) = waveflow(**fields), example()
    z, _ = model.flow.bijector(waveform[:, None], mel)
    assert z.shape == (2, *model.latent_shape(6))
    torch.testing.assert_close(model.vocode(mel, z=z), waveform, atol=1e-4, rtol=0)
    torch.testing.assert_close(model.for_inference().vocode(mel, z=z), waveform, atol=1e-4, rtol=0)


def test_a_draw_depends_on_generator_and_temperature_alone():
    model, (_, mel) = waveflow(temperature=0.5), example()

    def draw(**kwargs):
        return model.vocode(mel, generator=torch.Generator().manual_seed(3), **kwargs)

    assert torch.equal(draw(), draw(temperature=0.5)) and not torch.equal(draw(), draw(temperature=0.6))
    z = 0.5 * torch.randn(2, *model.latent_shape(6), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(draw(), model.vocode(mel, z=z))
    assert torch.equal(model.vocode(mel, temperature=0.0), model.vocode(mel, z=torch.zeros_like(z)))


@pytest.mark.parametrize("fields", [{}, LINEAR, {"height": 32}, WHITEN])
@pytest.mark.parametrize("folded", [False, True])
def test_ragged_batch_equals_each_alone(fields, folded):
    model, (_, mel) = waveflow(**fields), example(3, 9)
    model = model.for_inference() if folded else model
    z, lengths = torch.randn(3, *model.latent_shape(9)), torch.tensor([9, 4, 1])
    together = model.vocode(mel, z=z, lengths=lengths)
    for i, n in enumerate(lengths.tolist()):
        alone = model.vocode(mel[i : i + 1, :, :n], z=z[i : i + 1, :, : n * 256 // model.group])
        torch.testing.assert_close(together[i, : n * 256], alone[0], atol=1e-5, rtol=1e-4)
        assert not together[i, n * 256 :].any()


@pytest.mark.parametrize("fields", [{}, LINEAR, {"height": 4, "layers": 4}, WHITEN])
@pytest.mark.parametrize("chunk", [2, 5, 100])
def test_chunks_equal_the_whole(fields, chunk):
    # With weights so large that what is far away counts: with smaller ones a reach too short would pass.
    std = 0.1 if fields is WHITEN else 0.5
    model = trained(WaveFlow(**{**SMALL, "layers": 2, "flows": 2, **fields}), std).double()
    _, mel = example(2, 23)
    z = torch.randn(2, *model.latent_shape(23), dtype=torch.float64)
    assert sum(model.reach) < 20  # shorter than the mel, or nothing is tested
    whole, lengths = model.vocode(mel, z=z), torch.tensor([23, 12])
    torch.testing.assert_close(model.vocode(mel, z=z, chunk=chunk), whole, atol=1e-10, rtol=0)
    ragged = model.vocode(mel, z=z, chunk=chunk, lengths=lengths)
    torch.testing.assert_close(ragged, model.vocode(mel, z=z, lengths=lengths), atol=1e-10, rtol=0)


@pytest.mark.parametrize("fields", [{}, LINEAR])
def test_reach_is_not_too_short(fields):
    model = waveflow(**{"layers": 2, "flows": 2, **fields}).double()
    mel = (torch.randn(1, 80, 31, dtype=torch.float64) - 5).requires_grad_()
    z = torch.randn(1, *model.latent_shape(31), dtype=torch.float64)
    model.flow.bijector.inverse(z, mel)[0][0, 0, 15 * 256 : 16 * 256].sum().backward()
    seen = mel.grad[0].abs().sum(0).nonzero()[:, 0] - 15
    before, after = model.reach
    assert -before <= seen.min() and seen.max() <= after < 15


def test_reach_of_the_paper():
    # 8 flows of 15 times 255 columns of 16 samples are 1912.5 frames to either side; the upsampler sees 1 more.
    assert WaveFlow(channels=1).reach == (1914, 1914)


def test_denoiser_takes_the_models_own_tone_away():
    model, (_, mel) = waveflow(), example(1, 90)
    plain = model.vocode(mel, temperature=0.0)
    denoised = model.vocode(mel, temperature=0.0, denoise=1.0)
    assert denoised.shape == plain.shape and denoised.norm() < plain.norm()


def test_bfloat16_networks_leave_the_rest_in_float32():
    model, (_, mel) = waveflow(), example(1, 20)
    z = torch.randn(1, *model.latent_shape(20))
    fast = model.for_inference(torch.bfloat16)
    a, b = model.vocode(mel, z=z), fast.vocode(mel, z=z)
    assert b.dtype == torch.float32 and 0 < (a - b).norm() < 0.05 * a.norm()
    assert not any(p.requires_grad for p in fast.parameters()) and not fast.training
    assert all(t.dtype != torch.bfloat16 for n, t in fast.state_dict().items() if "conditioner" not in n)
    torch.testing.assert_close(fast.log_prob(*example()), model.log_prob(*example()), rtol=0.01, atol=5)
    with pytest.raises(InputError, match=r"torch.float32 or torch.bfloat16, got torch.int8"):
        model.for_inference(torch.int8)


@pytest.mark.slow
def test_compiled_inference_is_the_same():
    model, (_, mel) = waveflow(), example(1, 8)
    z = torch.randn(1, *model.latent_shape(8))
    compiled = model.for_inference(compile=True).vocode(mel, z=z)
    torch.testing.assert_close(compiled, model.vocode(mel, z=z), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fields", [{}, LINEAR])
def test_memory_invert_gives_the_gradients_of_store(fields):
    waveform, mel = example()
    waveform = waveform[:, :-64]  # so that the mel has more columns
    gradients = []
    for memory in ("store", "invert"):
        torch.manual_seed(0)
        model = waveflow(memory=memory, **fields).double()
        model.log_prob(waveform.double(), mel.double()).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-8 * gradients[0].norm()


def test_training_step_in_bfloat16_autocast_is_finite_everywhere():
    model, (waveform, mel) = waveflow(), example()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = -model.log_prob(waveform, mel).mean() / waveform.shape[1]
        back = model.vocode(mel, z=model.flow.bijector(waveform[:, None], mel)[0])
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    exact = -model.log_prob(waveform, mel).mean() / waveform.shape[1]
    assert loss.dtype == torch.float32 and abs(loss.item() - exact.item()) < 0.05
    assert (back - waveform).norm() < 0.1 * waveform.norm()


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    model, (waveform, mel) = WaveFlow(**{**SMALL, **LINEAR}), example()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        loss = -model(waveform, mel).mean() / waveform.shape[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def test_save_and_load(tmp_path):
    model = waveflow(permutation="a", mel=MelConfig.from_preset("bigvgan-24k"))
    model.save_pretrained(tmp_path / "a")
    for load in (WaveFlow.from_pretrained, load_model):
        twin = load(tmp_path / "a")
        assert isinstance(twin, WaveFlow) and twin.config == model.config and not twin.training
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    twin.save_pretrained(tmp_path / "b")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    fast = model.for_inference()
    for call in (lambda: fast.save_pretrained(tmp_path / "x"), fast.for_inference):
        with pytest.raises(InputError, match="made for inference"):
            call()
    assert not (tmp_path / "x").exists()


def test_other_hops():
    model = waveflow(height=12, mel=MelConfig(hop_length=300))
    waveform, mel = 0.1 * torch.randn(1, 1200), torch.randn(1, 80, 4) - 5
    z, _ = model.flow.bijector(waveform[:, None], mel)
    torch.testing.assert_close(model.vocode(mel, z=z), waveform, atol=1e-4, rtol=0)


MEL = torch.zeros(1, 80, 4) - 4.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WaveFlow.from_preset("huge"), "no preset 'huge', expected one of ljspeech-64"),
        (lambda: WaveFlow(width=3), "no field width"),
        (lambda: WaveFlow(height=24), "height of 2 to 128 that divides the hop of 256, got 24"),
        (lambda: WaveFlow(height=256), "height of 2 to 128.*got 256"),
        (lambda: WaveFlow(height=1), "height of 2 to 128.*got 1"),
        (lambda: WaveFlow(flows=0), "flows of at least 1"),
        (lambda: WaveFlow(kernel_size=2), "odd kernel_size, got 2"),
        (lambda: WaveFlow(kernel_size=-1), "odd kernel_size, got -1"),
        (lambda: WaveFlow(permutation="c"), 'permutation "a" or "b", got \'c\''),
        (lambda: WaveFlow(upsampler="nearest", **SMALL), '"transposed" or "linear"'),
        (lambda: WaveFlow(memory="less", **SMALL), 'memory "store" or "invert"'),
        (lambda: WaveFlow(scale="softplus", **SMALL), "scale"),
        (lambda: WaveFlow(temperature=math.nan, **SMALL), "temperature of at least 0"),
        (lambda: waveflow().vocode(torch.zeros(1, 100, 4)), "80 bands"),
        (lambda: waveflow().vocode(MEL[0]), r"mels \(B, 80, frames\), got \(80, 4\)"),
        (lambda: waveflow().vocode(torch.full((1, 80, 4), float("nan"))), "NaN"),
        (lambda: waveflow().vocode(MEL, temperature=-1), "temperature of at least 0"),
        (lambda: waveflow().vocode(MEL, z=torch.zeros(1, 16, 4)), r"\(1, 16, 64\), got"),
        (lambda: waveflow().vocode(MEL, z=torch.zeros(1, 16, 64), temperature=1), "got both"),
        (lambda: waveflow().vocode(MEL, lengths=torch.tensor([5])), "within 0 ... 4, got"),
        (lambda: waveflow().vocode(MEL, chunk=0), "chunks of at least 1 frame"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_non_finite_synthesis_is_said():
    model = waveflow()
    with torch.no_grad():
        for flow in model.flows():
            flow.conditioner.output.bias.fill_(-300.0)
    with pytest.raises(FloatingPointError, match="not finite"):
        model.vocode(MEL, temperature=1.0)


@pytest.mark.parametrize("fields", [{}, LINEAR, WHITEN])
def test_vmap_and_full_graph_compilation(fields):
    model, (waveform, mel) = waveflow(**{"flows": 2, "height": 4, **fields}), example(frames=2)
    bijector, x = model.flow.bijector, waveform[:, None]
    expected = bijector(x, mel)
    compiled = torch.compile(bijector, fullgraph=True, backend="eager")(x, mel)
    mapped = torch.func.vmap(lambda item: bijector(item, mel))(torch.stack([x, 2 * x]))
    back = torch.func.vmap(lambda item: bijector.inverse(item, mel)[0])(mapped[0])
    torch.testing.assert_close(back[1], 2 * x, atol=1e-4, rtol=1e-4)
    for a, b, c in zip(expected, compiled, mapped, strict=True):
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(c[0], a, atol=1e-4, rtol=1e-4)
