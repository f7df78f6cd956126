"""Logit: its precision at the ends of the interval, and its range."""

import numpy as np
import pytest
import scipy.special
import torch

from waveflow.bijectors import Logit
from waveflow.errors import InputError


@pytest.mark.parametrize("alpha", [0.05, 1e-6, 0.0])
def test_float32_is_accurate_up_to_the_ends(alpha):
    x = torch.cat([torch.linspace(1e-5, 0.999, 300), 1 - torch.logspace(-3, -7, 20)])
    z, log_det = Logit(alpha)(x[:, None])
    wide = x.double().numpy()
    p, q = alpha + (1 - 2 * alpha) * wide, alpha + (1 - 2 * alpha) * (1 - wide)
    np.testing.assert_allclose(z[:, 0].numpy(), np.log(p) - np.log(q), rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(log_det.numpy(), np.log(1 - 2 * alpha) - np.log(p) - np.log(q), rtol=2e-6, atol=2e-6)
    back, _ = Logit(alpha).inverse(z)
    np.testing.assert_allclose(back[:, 0].numpy(), wide, atol=2e-6)


def test_is_scipys():
    x = torch.rand(50, 3, dtype=torch.float64)
    z, _ = Logit(0.1)(x)
    np.testing.assert_allclose(z.numpy(), scipy.special.logit(0.1 + 0.8 * x.numpy()), rtol=1e-12)


def test_everything_decodes_to_the_interval_with_its_margin():
    x, log_det = Logit(0.05).inverse(torch.tensor([[-1e4], [-30.0], [30.0], [1e4]]))
    margin = 0.05 / 0.9
    torch.testing.assert_close(x[:, 0], torch.tensor([-margin, -margin, 1 + margin, 1 + margin]))
    assert log_det.isfinite().all()


@pytest.mark.parametrize("alpha", [-0.1, 0.5, float("nan")])
def test_other_alphas_are_refused(alpha):
    with pytest.raises(InputError, match=r"Logit expects alpha in \[0, 0.5\), got"):
        Logit(alpha)
