"""The likelihood of WaveNet's discrete heads is a density like that of any vocoder: by numpy, and in one harness."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from scipy.stats import logistic, norm

from waveflow.audio import MelConfig
from waveflow.data import LSB
from waveflow.evaluation import dequantize, nats_per_sample
from waveflow.models import WaveNet

MEL = MelConfig(n_mels=8, n_fft=128, win_length=128, hop_length=64)
TINY = {"mel": MEL, "layers": 3, "cycle": 3, "channels": 8, "first_kernel": 1, "upsampler": "linear"}
SCALE = 0.1


def wavenet(head, std=0.1, **fields):
    """A model away from its start; without ``std`` one whose answer is its last bias, whatever it sees."""
    model = WaveNet(**{**TINY, "context_channels": 6, "components": 3, "head": head, **fields}).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(std * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def waveforms(batch=2, frames=3):
    generator = torch.Generator().manual_seed(1)
    waveform = (0.3 * torch.randn(batch, 64 * frames, generator=generator, dtype=torch.float64)).clamp(-1, 1)
    waveform[0, :4] = torch.tensor([-1.0, 1.0, 0.0, -0.99999])
    return waveform, torch.randn(batch, 8, frames, generator=generator, dtype=torch.float64) - 5


def edges_of(head):
    """Where cells meet: between even steps of the waveform, or of the waveform compressed by the mu-law."""
    values = {"mol": 65536, "softmax": 256}[head]
    between = (np.arange(1, values) - 0.5) * 2 / (values - 1) - 1
    return between if head == "mol" else np.sign(between) * (256.0 ** np.abs(between) - 1) / 255


def log_density(head, answer, waveform):
    """log of the probability of the cell of each sample over the cell's width, from the network's answer (B, P, T)."""
    edges = edges_of(head)
    cells = np.searchsorted(edges, waveform, side="right")
    bounds = np.concatenate([[-1.0], edges, [1.0]])
    width = bounds[cells + 1] - bounds[cells]
    if head == "softmax":
        return np.take_along_axis(log_softmax(answer, axis=1), cells[:, None], 1)[:, 0] - np.log(width)
    k = answer.shape[1] // 3
    weights = np.exp(log_softmax(answer[:, :k], axis=1))
    means = answer[:, k : 2 * k] + ((2 * np.arange(k) + 1) / k - 1)[:, None]
    scales = np.exp(8 * np.tanh(answer[:, 2 * k :] / 8)) / (2 * k)
    ends = np.concatenate([[-np.inf], edges, [np.inf]])
    above, below = (expit((ends[cells + i][:, None] - means) / scales) for i in (1, 0))
    return np.log((weights * (above - below)).sum(1)) - np.log(width)


@pytest.mark.parametrize("head", ["mol", "softmax"])
def test_the_density_is_that_of_cells(head):
    model = wavenet(head)
    waveform, mel = waveforms()
    values = {"mol": 65536, "softmax": 256}[head]
    cells = np.searchsorted(edges_of(head), waveform.numpy(), side="right")
    seen = torch.from_numpy(cells * 2 / (values - 1) - 1)
    with torch.no_grad():
        answer = model.stack(seen[:, None], model.encoder(mel)).reshape(2, -1, waveform.shape[1])
        found = model.log_prob(waveform, mel)
    expected = log_density(head, answer.numpy(), waveform.numpy()).sum(1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize("head", ["mol", "softmax"])
def test_the_density_of_a_sample_integrates_to_one_over_the_range(head):
    """Also behind others that are given: the ratio of two likelihoods is the density of what is added."""
    model = wavenet(head, std=0.3).float()
    count = {"mol": 2**17, "softmax": 2**15}[head]  # points within each cell, the halves at the ends included
    x = ((torch.arange(count).double() + 0.5) * 2 / count - 1).float()[:, None]
    past = torch.tensor([[0.2, -0.1]])
    mel = torch.full((1, 8, 1), -5.0)
    with torch.no_grad():
        log_p = torch.cat(
            [
                model.log_prob(torch.cat([past.expand(len(part), -1), part], 1), mel.expand(len(part), -1, -1))
                for part in x.split(2**14)
            ]
        )
        density = (log_p - model.log_prob(past, mel)).double().exp()
    assert density.std() > 0.01
    assert (density.mean() * 2).item() == pytest.approx(1, abs=2e-3)


def clips():
    """Gaussian noise of a known scale at 16 bits."""
    generator = torch.Generator().manual_seed(2)
    rounded = (SCALE * torch.randn(2, 64 * 40, generator=generator) / LSB).round() * LSB
    return [{"waveform": w, "mel": torch.full((8, 40), -5.0), "name": f"{i}"} for i, w in enumerate(rounded)]


def knowing(head, bias):
    """A model that gives every sample the same distribution."""
    model = wavenet(head, std=0.0, components=1)
    with torch.no_grad():
        model.stack.output.weight.zero_()
        model.stack.output.bias.copy_(torch.as_tensor(bias))
    return model.float()


def test_all_heads_that_know_the_distribution_get_the_same_figure():
    """One harness: the same noise on the same samples, so heads differ by what they say of them alone."""
    data = clips()
    x = np.concatenate([dequantize(clip["waveform"], (0, i)).numpy() for i, clip in enumerate(data)]).astype(float)
    edges = np.concatenate([[-np.inf], edges_of("softmax"), [np.inf]])
    cells = np.diff(norm.cdf(edges, scale=SCALE)).clip(1e-30)
    gaussian = nats_per_sample(knowing("gaussian", [0.0, math.log(SCALE)]), data)
    softmax = nats_per_sample(knowing("softmax", np.log(cells)), data)
    assert gaussian.nats_per_sample == pytest.approx(norm.logpdf(x, scale=SCALE).mean(), abs=1e-5)
    assert softmax.nats_per_sample == pytest.approx(gaussian.nats_per_sample, abs=1e-3)

    logistics = logistic.logpdf(x, scale=SCALE / 2).mean()
    mol = nats_per_sample(knowing("mol", [0.0, 0.0, 8 * math.atanh(math.log(SCALE) / 8)]), data)
    assert mol.nats_per_sample == pytest.approx(logistics, abs=1e-5)
    assert abs(logistics - gaussian.nats_per_sample) > 0.01
    assert gaussian.exact and softmax.exact and mol.exact


@pytest.mark.parametrize("head", ["gaussian", "logistics", "mol", "softmax"])
def test_every_head_says_that_its_likelihood_is_exact(head):
    """The same at every call, with no noise of its own, which is what sets a density apart from a bound of one."""
    model = wavenet(head)
    waveform, mel = waveforms()
    torch.manual_seed(1)
    first = model.log_prob(waveform, mel)
    assert model.exact and torch.equal(first, model.log_prob(waveform, mel))
