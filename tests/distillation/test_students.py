"""Models that are made to be taught."""

import pytest
import torch

from waveflow.bijectors import LOG_SCALES, Autoregressive
from waveflow.errors import InputError
from waveflow.models import MaskedConvFlow, MaskedConvIAF, SplineIAF, load_model
from waveflow.testing import check_bijector


def test_the_maps_of_a_spline_iaf_are_bijectors():
    model = SplineIAF(features=3, layers=2, hidden=(8,), bins=4, activation="silu").double()
    check_bijector(model.bijector, torch.randn(5, 3, dtype=torch.float64))


def test_a_masked_conv_iaf_is_a_masked_conv_flow_turned_round():
    """With the same weights its maps make of noise what the flow's would, had noise been drawn before each pixel."""
    fields = {"steps": 2, "hidden": 8, "layers": 1, "height": 4, "width": 4, "values": 17}
    iaf, flow = MaskedConvIAF(**fields).double(), MaskedConvFlow(**fields).double()
    with torch.no_grad():
        for parameter in iaf.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, dtype=torch.float64))
    ours, theirs = list(iaf.flow.bijector)[1:], list(flow.flow.bijector)[1:]
    z = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    made, expected = z, z
    for mine, twin in zip(ours[::-1], theirs[::-1], strict=True):
        made, _ = mine.inverse(made)
        if isinstance(twin, Autoregressive):
            twin.load_state_dict(mine.bijector.state_dict())
            mean, log_std = twin.conditioner(expected, None).unbind(1)
            expected = mean + expected * LOG_SCALES[flow.config.scale](log_std).exp()
        else:
            expected, _ = twin.inverse(expected)
    torch.testing.assert_close(made, expected)
    assert (made - z).abs().max() > 0.1


def test_a_new_student_gives_what_its_base_gives():
    model = MaskedConvIAF.from_preset("digits")
    images = model.sample(50)
    assert images.shape == (50, 1, 8, 8) and images.max() <= 16
    assert torch.equal(model.decode(model.encode(images)), images)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SplineIAF(features=2, layers=2, hidden=(8,), bins=4),
        lambda: MaskedConvIAF.from_preset("digits", classes=3),
    ],
)
def test_students_can_be_saved(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert type(again) is type(model) and again.config == model.config


@pytest.mark.parametrize("fields", [{"bins": 1}, {"bound": 0.0}, {"raw_scale": -1.0}])
def test_splines_out_of_range_are_refused(fields):
    with pytest.raises(InputError, match="SplineIAF expects bins >= 2, a positive bound and a positive raw_scale"):
        SplineIAF(features=2, **fields)
