"""The contrastive term, where every divergence is known in closed form."""

import pytest
import torch
from torch.distributions import Normal

from waveflow.distillation import contrastive_kl, draw_scored
from waveflow.errors import InputError
from waveflow.models import IAF


def shifted(x, context):
    """N(context, 1) on each of two features: KL from the standard normal is |context|^2."""
    return Normal(context, 1.0).log_prob(x).sum(1)


def test_is_the_divergence_under_the_context_of_another_item():
    student = IAF(features=2, layers=1, hidden=(4,), context=1)  # still standard normal, whatever the context
    context = torch.tensor([[0.0], [3.0]])
    drawn = draw_scored(student, shifted, context, draws=20_000, generator=torch.Generator().manual_seed(0))
    own = drawn.log_ratio.mean(0)
    other = contrastive_kl(drawn, shifted, context).mean(0)
    torch.testing.assert_close(own, torch.tensor([0.0, 9.0]), atol=0.1, rtol=0)
    torch.testing.assert_close(other, torch.tensor([9.0, 0.0]), atol=0.1, rtol=0)


def test_no_item_keeps_its_own_context():
    student = IAF(features=2, layers=1, hidden=(4,), context=1)
    context = torch.arange(5.0)[:, None]
    drawn = draw_scored(student, shifted, context, draws=1)
    seen = set()

    def watching(x, given):
        assert (given != context).all()
        seen.add(tuple(given.flatten().tolist()))
        return shifted(x, given)

    for seed in range(30):
        contrastive_kl(drawn, watching, context, torch.Generator().manual_seed(seed))
    assert len(seen) == 4


def test_single_contexts_are_refused():
    student = IAF(features=2, layers=1, hidden=(4,), context=1)
    one = torch.zeros(1, 1)
    with pytest.raises(InputError, match="at least 2 contexts, got 1"):
        contrastive_kl(draw_scored(student, shifted, one), shifted, one)
    with pytest.raises(InputError, match="at least 2 contexts, got 0"):
        contrastive_kl(draw_scored(student, shifted, one), shifted, None)
    with pytest.raises(InputError, match=r"each of 3 contexts, got shape \(1, 1\)"):
        contrastive_kl(draw_scored(student, shifted, one), shifted, torch.zeros(3, 1))
