"""Temperature sweeps: one draw of noise, scaled."""

import pytest
import torch

from waveflow.errors import InputError
from waveflow.images import temperature_sweep


def test_the_same_noise_is_scaled(rotation):
    sweep = temperature_sweep(rotation(), [0.0, 0.5, 1.0], n=4, seed=3)
    assert sweep.dtype == torch.uint8 and sweep.shape == (3, 4, 1, 4, 4)
    assert (sweep[0] == 128).all() and sweep[2].unique().numel() > 20
    noise = sweep.float() + 0.5 - 128
    assert (noise[2] - 2 * noise[1]).abs().max() <= 1.5
    assert torch.equal(sweep, temperature_sweep(rotation(), [0.0, 0.5, 1.0], n=4, seed=3))
    assert not torch.equal(sweep, temperature_sweep(rotation(), [0.0, 0.5, 1.0], n=4, seed=4))


@pytest.mark.parametrize(("temperatures", "n"), [([], 3), ([1.0], 0)])
def test_nothing_to_draw_is_refused(rotation, temperatures, n):
    with pytest.raises(InputError, match="at least one of each"):
        temperature_sweep(rotation(), temperatures, n)
