"""A causal stack in compiled blocks against the same in plain PyTorch, in float64."""

import copy
import multiprocessing
import pickle
import threading

import pytest
import torch
from compiled_checks import assert_near, move_far

from waveflow import threads
from waveflow.kernels.wavenet_layers import run
from waveflow.networks import LinearUpsampler, WaveNetStack, WaveNetStream, compiled_layers
from waveflow.networks.compile_choice import Kept
from waveflow.networks.compiled_stream import CompiledStream, pack_stream
from waveflow.threads import one_torch_thread, own_threads

STACKS = {
    "as ClariNet's": {"kernel_size": 3, "context_channels": 7},
    "channels of two vectors": {"kernel_size": 3, "context_channels": 3, "channels": 32},
    "channels of three": {"kernel_size": 3, "context_channels": 3, "channels": 48},
    "no context": {"kernel_size": 3},
    "2 taps": {"kernel_size": 2, "context_channels": 3, "first_kernel": 5},
    "1 tap": {"kernel_size": 1, "context_channels": 3},
    "4 taps, an end": {"kernel_size": 4, "post": True, "scaled": True},
    "an end": {"kernel_size": 3, "post": True, "scaled": True, "context_channels": 2, "first_kernel": 3},
    "separable": {"kernel_size": 3, "separable": True},
}


def make_stack(layers=8, channels=20, **fields):
    """Dilations of 1 to 64, then 1 again."""
    return move_far(WaveNetStack(1, 3, channels, layers, cycle=7, causal=True, **fields))


def example(network, length, batch=2):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(batch, 1, length, generator=generator)
    if not network.context_channels:
        return x, None
    return x, torch.randn(batch, network.context_channels, length, generator=generator)


def compiled(network, batch=2):
    weights = network.packed()
    return CompiledStream(weights, pack_stream(weights), batch)


def by_blocks(stream, x, context, lengths):
    contexts = [None] * len(lengths) if context is None else context.split(lengths, 2)
    return torch.cat([stream.push(*both) for both in zip(x.split(lengths, 2), contexts, strict=True)], 3)


def exact(network, x, context):
    return WaveNetStream(network.packed(torch.float64), len(x)).push(
        x.double(), None if context is None else context.double()
    )


@pytest.mark.parametrize("name", STACKS)
def test_equals_plain_pytorch_in_float64(name):
    """Lengths with and without whole tiles of Winograd's, shorter than a layer's past and longer; of one sample."""
    network = make_stack(**STACKS[name])
    x, context = example(network, 1200)
    expected = exact(network, x, context)
    for lengths in ([1200], [512, 1, 127, 128, 3, 429], [256] * 4 + [88, 88]):
        assert_near(by_blocks(compiled(network), x, context, lengths), expected)


def test_long_calls_go_layer_by_layer(monkeypatch):
    network = make_stack(**STACKS["as ClariNet's"])
    x, context = example(network, 700)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    expected, calls = by_blocks(compiled(network), x, context, [500, 200]), []
    monkeypatch.setattr(compiled_layers, "_LONG", 1)
    monkeypatch.setattr(compiled_layers, "run", lambda *args: calls.append(args[6]) or run(*args))
    assert torch.equal(by_blocks(compiled(network), x, context, [500, 200]), expected)
    assert calls == 2 * [(i, i + 1) for i in range(8)]


@pytest.mark.parametrize("count", [2, 5, 40])
def test_threads_share_the_tiles(count, monkeypatch):
    network = make_stack(**STACKS["an end"])
    x, context = example(network, 900, 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    assert_near(by_blocks(compiled(network, 3), x, context, [512, 388]), exact(network, x, context))


@pytest.mark.parametrize("taps", [2, 3])
def test_a_context_between_frames_is_told_by_the_frames(taps):
    network = make_stack(kernel_size=taps, context_channels=4)
    upsampler = LinearUpsampler(5, 4, hop_length=40, group=1)
    mel, mask = torch.randn(2, 5, 12), torch.ones(2, 1, 12)
    mask[1, :, 7:] = 0
    with torch.no_grad():
        knots = upsampler.knots(mel, mask)
    x, context = example(network, 480)[0], knots.interpolated()
    stream = compiled(network)
    found = torch.cat([stream.push(x[..., a:b], knots.between(a, b)) for a, b in [(0, 300), (300, 480)]], 3)
    assert_near(found, exact(network, x, context))


def test_nan_goes_on_and_stays_in_its_utterance():
    network = make_stack(kernel_size=3)
    x, _ = example(network, 400)
    clean = compiled(network).push(x)
    x[1, 0, 170] = torch.nan
    found = compiled(network).push(x)
    assert torch.equal(found[0], clean[0])
    assert found[1, ..., 171:234].isnan().all()


def test_gates_far_out_saturate():
    network = make_stack(kernel_size=3)
    with torch.no_grad():
        network.layers[0].gates.bias.copy_(torch.linspace(-300, 300, 40))
    x, _ = example(network, 300)
    assert_near(compiled(network).push(x), exact(network, x, None))


def test_folded_stacks_pack_once_and_again_when_they_change(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    calls = []
    monkeypatch.setattr(
        "waveflow.networks.compiled_stream.pack_stream", lambda weights: calls.append(1) or pack_stream(weights)
    )
    folded = make_stack(kernel_size=3).folded()
    x, _ = example(folded, 200)
    first = folded.stream(2).push(x)
    assert torch.equal(folded.stream(2).push(x), first) and len(calls) == 1
    with torch.no_grad():
        folded.packed_mix.mul_(2)
    assert_near(folded.stream(2).push(x), exact(folded, x, None))
    assert len(calls) == 2
    for twin in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        assert_near(twin.stream(2).push(x), exact(folded, x, None))


def test_other_processors_and_dtypes_stream_by_pytorch(monkeypatch):
    network = make_stack(kernel_size=3)
    assert not network.folded(torch.bfloat16).stream(1).compiled
    assert not copy.deepcopy(network).double().stream(1).compiled
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not network.stream(1).compiled and not network.folded().stream(1).compiled
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert network.stream(1).compiled and network.folded().stream(1).compiled


def test_bad_input_is_named():
    network = make_stack(kernel_size=3, context_channels=3)
    stream, layers = compiled(network), compiled_layers.CompiledLayers(pack_stream(network.packed()), 2)
    layers.inputs(8, 20)
    with pytest.raises(ValueError, match=r"samples \(2, 1, n\), got \(1, 1, 9\)"):
        stream.push(torch.zeros(1, 1, 9))
    with pytest.raises(ValueError, match=r"context \(2, 3, 9\), got None"):
        stream.push(torch.zeros(2, 1, 9))
    knots = LinearUpsampler(5, 3, hop_length=4, group=1).knots(torch.zeros(2, 5, 2))
    with pytest.raises(ValueError, match=r"context \(2, 3, 9\), got \(2, 3, 8\)"):
        stream.push(torch.zeros(2, 1, 9), knots)
    knots = knots._replace(frames=knots.frames.detach())
    short = {"left": knots.left[:, :7], "right": knots.right[:, :7]}
    for part in ({"right": knots.right[:1]}, short, {"weight": knots.weight[1:]}, {"frames": knots.frames[:1]}):
        with pytest.raises(ValueError, match="2 x 8 samples"):
            layers(8, knots._replace(**part))
    with pytest.raises(ValueError, match=r"2 x 8 samples, got \(1, 3, 8\)"):
        layers(8, torch.zeros(1, 3, 8))


def _push_in_a_child(weights, x, results):
    torch.set_num_threads(1)  # OpenMP's threads stayed behind in the parent
    torch.get_num_threads = lambda: 2
    results.put(CompiledStream(weights, pack_stream(weights), 2).push(x).sum().item())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_threads_are_begun_anew_after_a_fork(monkeypatch):
    network = make_stack(kernel_size=3)
    x, weights = example(network, 300)[0], network.packed()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 2)
        expected = compiled(network).push(x).sum().item()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_push_in_a_child, args=(weights, x, results))
    child.start()
    try:
        assert results.get(timeout=60) == pytest.approx(expected, rel=1e-5)
    finally:
        child.terminate()


def test_pytorch_has_one_thread_in_the_calling_thread_alone():
    before, seen = torch.get_num_threads(), []

    def other():
        seen.append((torch.get_num_threads(), own_threads()))
        with one_torch_thread():
            seen.append((torch.get_num_threads(), own_threads()))

    try:
        torch.set_num_threads(2)
        with one_torch_thread():
            assert (torch.get_num_threads(), own_threads()) == (1, 2)
            thread = threading.Thread(target=other)  # born meanwhile
            thread.start()
            thread.join()
            with one_torch_thread():
                assert own_threads() == 2
        assert torch.get_num_threads() == own_threads() == 2
        assert seen == [(2, 2), (1, 2)]
        with pytest.raises(RuntimeError, match="within"), one_torch_thread():
            raise RuntimeError("within")
        assert torch.get_num_threads() == own_threads() == 2
        torch.set_num_threads(1)
        with one_torch_thread():
            assert torch.get_num_threads() == own_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_without_the_libraries_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(threads, "_limits", lambda: None)
    before = torch.get_num_threads()
    with one_torch_thread():
        assert torch.get_num_threads() == own_threads() == before


def test_what_is_kept_follows_its_tensors():
    kept, made = Kept(), []

    def make():
        made.append(1)
        return len(made)

    x = torch.zeros(1000)
    assert [kept([x], make) for _ in range(2)] == [1, 1]
    x.add_(1)
    assert [kept([x], make) for _ in range(2)] == [2, 2]
    for i in range(20):  # memory that is given back tends to be taken again at once
        del x
        x = torch.zeros(1000)
        assert kept([x], make) == 3 + i
    assert copy.deepcopy(kept)([x], make) == 23
    with torch.inference_mode():
        assert [kept([y], make) for y in [torch.zeros(3)] * 2] == [24, 24]


def test_frames_are_told_to_plain_streams_too():
    network = make_stack(kernel_size=3, context_channels=4).double()
    knots = LinearUpsampler(5, 4, hop_length=20, group=1).double().knots(torch.randn(2, 5, 3).double())
    x = torch.randn(2, 1, 60).double()
    expected = network.stream(2).push(x, knots.interpolated())
    torch.testing.assert_close(network.stream(2).push(x, knots), expected, rtol=0, atol=0)
