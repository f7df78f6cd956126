"""Bijectors as torch transforms and back, in torch's own machinery."""

import pytest
import torch
from registry import BIJECTORS
from torch.distributions import AbsTransform, Independent, Normal, TanhTransform, TransformedDistribution

from waveflow.bijectors import FromTransform
from waveflow.distributions import Flow, StandardNormal
from waveflow.testing import check_bijector


def test_as_transform_makes_the_distribution_that_the_flow_is():
    bijector, x, _ = BIJECTORS["Chain"]()
    bijector(x)
    flow = Flow(StandardNormal(), bijector, (4, 5))
    base = Independent(Normal(torch.zeros(4, 5), torch.ones(4, 5)), 2)
    distribution = TransformedDistribution(base, bijector.as_transform(event_ndim=2))
    points = torch.randn(7, 3, 4, 5)
    torch.testing.assert_close(distribution.log_prob(points), flow.log_prob(points))
    assert distribution.sample((6,)).shape == (6, 4, 5)


def test_from_transform_of_a_nonlinear_map():
    check_bijector(FromTransform(TanhTransform()), 0.9 * torch.tanh(torch.randn(3, 4)))
    with pytest.raises(ValueError, match="bijective"):
        FromTransform(AbsTransform())


def test_there_and_back_is_the_same_map():
    bijector, x, _ = BIJECTORS["Affine coupling, halves"]()
    twin = FromTransform(bijector.as_transform(event_ndim=2))
    for a, b in zip(twin(x) + twin.inverse(x), bijector(x) + bijector.inverse(x), strict=True):
        torch.testing.assert_close(a, b)


def test_as_distribution():
    bijector, x, context = BIJECTORS["Conditioned chain"]()
    bijector(x, context)
    flow = Flow(StandardNormal(), bijector, (4, 5))
    distribution = flow.as_distribution(context)
    assert distribution.batch_shape == (2,) and distribution.event_shape == (4, 5)
    drawn = distribution.rsample((3,))
    assert drawn.shape == (3, 2, 4, 5) and drawn.requires_grad and not distribution.sample().requires_grad
    torch.testing.assert_close(distribution.log_prob(drawn), flow.log_prob(drawn, context))
    alone = Flow(StandardNormal(), BIJECTORS["Chain"]()[0], (4, 5)).as_distribution()
    assert alone.batch_shape == () and alone.log_prob(alone.sample()).shape == ()
