"""BatchNorm: running averages against numpy, gradients against the formula, several processes against one."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from waveflow.bijectors import BatchNorm, Chain
from waveflow.errors import InputError


def batches(count, *shape):
    generator = torch.Generator().manual_seed(5)
    return [(i + 1) * torch.randn(shape, generator=generator, dtype=torch.float64) + i for i in range(count)]


def test_averages_begin_with_the_first_batch_and_follow_the_others():
    norm = BatchNorm(3, momentum=0.3).double()
    mean = variance = None
    for x in batches(4, 5, 3, 2, 4):
        z, log_det = norm(x)
        own_mean, own_variance = x.numpy().mean((0, 2, 3)), x.numpy().var((0, 2, 3))
        mean = own_mean if mean is None else 0.7 * mean + 0.3 * own_mean
        variance = own_variance if variance is None else 0.7 * variance + 0.3 * own_variance
        expected = (x.numpy() - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
        np.testing.assert_allclose(z.detach().numpy(), expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(log_det.detach().numpy(), -4 * np.log(variance + 1e-5).sum(), rtol=1e-10)
        np.testing.assert_allclose(norm.mean.numpy(), mean)
        rebuilt, back = norm.inverse(z)  # also in training: with the averages that forward used
        torch.testing.assert_close(rebuilt, x)
        torch.testing.assert_close(back, -log_det)


def test_evaluation_is_torchs_and_changes_nothing():
    norm = BatchNorm(3)
    for x in batches(3, 8, 3, 4):
        norm(x.float())
    norm.eval()
    x = torch.randn(2, 3, 4)
    before = norm.mean.clone()
    torch.testing.assert_close(norm(x)[0], F.batch_norm(x, norm.mean, norm.variance, eps=norm.eps))
    assert torch.equal(norm.mean, before)


def test_gradients_flow_through_the_statistics_of_the_batch():
    norm = BatchNorm(2, momentum=0.4).double()
    first, x = batches(2, 6, 2, 3)
    norm(first)
    old_mean, old_variance = norm.mean.clone(), norm.variance.clone()

    def by_hand(x):
        mean = 0.6 * old_mean + 0.4 * x.mean((0, 2))
        variance = 0.6 * old_variance + 0.4 * x.var((0, 2), correction=0)
        z = (x - mean[:, None]) / (variance + 1e-5).sqrt()[:, None]
        return z.sin().sum() - 0.5 * 3 * 6 * (variance + 1e-5).log().sum()

    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    z, log_det = norm(a)
    (z.sin().sum() + log_det.sum()).backward()
    by_hand(b).backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_averages_survive_a_bad_batch_and_an_empty_one():
    norm = BatchNorm(2)
    norm(torch.full((2, 2), float("nan")))
    assert not norm.initialized and norm.mean.tolist() == [0, 0]
    norm(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    norm(torch.tensor([[1.0, float("inf")], [3.0, 6.0]]))
    assert norm(torch.zeros(0, 2))[0].shape == (0, 2)
    assert norm.mean.tolist() == [2, 4] and norm.variance.tolist() == [1, 4]


def test_state_is_saved():
    norm, twin = BatchNorm(2), BatchNorm(2)
    first, second = batches(2, 6, 2)
    norm(first.float())
    twin.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(second.float()), twin(second.float()))


def test_training_under_inverted_memory_is_refused():
    chain = Chain([BatchNorm(2)], memory="invert")
    x = torch.randn(6, 2, requires_grad=True)
    with pytest.raises(InputError, match='BatchNorm cannot be trained under memory="invert": use ActNorm'):
        chain(x)[0].sum().backward()
    chain.eval()
    chain(x)[0].sum().backward()
    torch.testing.assert_close(x.grad, (chain[0].variance + 1e-5).rsqrt().expand(6, 2))


def test_other_momenta_are_refused():
    for momentum in (0.0, 1.1):
        with pytest.raises(InputError, match=r"momentum in \(0, 1\], got"):
            BatchNorm(2, momentum=momentum)


def test_compiles_as_one_graph():
    norm, x = BatchNorm(2), torch.randn(4, 2, 3)
    norm(x)
    norm.eval()
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(norm, fullgraph=True, backend="eager")(x), norm(x))


_RANK = """
import os, sys, torch, torch.distributed as dist
from waveflow.bijectors import BatchNorm
rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
x = torch.load(out + "/x.pt")[rank::2].requires_grad_()
norm = BatchNorm(3).double()
z, log_det = norm(x)
(z.sin().sum() + log_det.sum()).backward()
torch.save([z.detach(), x.grad, norm.mean, norm.variance], f"{out}/{rank}.pt")
dist.barrier()
os._exit(0)  # threads of gloo abort an interpreter's end now and then
"""


@pytest.mark.slow
def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    x = batches(1, 8, 3, 2)[0]
    torch.save(x, tmp_path / "x.pt")
    commands = [[sys.executable, "-c", _RANK, str(rank), str(tmp_path / "store"), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert all(process.returncode == 0 for process in processes), errors
    x.requires_grad_()
    norm = BatchNorm(3).double()
    z, log_det = norm(x)
    (z.sin().sum() + log_det.sum()).backward()
    for rank in range(2):
        own_z, grad, mean, variance = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(own_z, z[rank::2].detach())
        torch.testing.assert_close(grad, x.grad[rank::2])
        torch.testing.assert_close((mean, variance), (norm.mean, norm.variance))
