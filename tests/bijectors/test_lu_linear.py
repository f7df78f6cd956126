"""The LU map against a dense matrix."""

import torch

from waveflow.bijectors import LULinear


def test_is_a_matrix_and_its_log_det():
    layer = LULinear(7, generator=torch.Generator().manual_seed(1)).double()
    assert not torch.equal(layer.order, layer.order.argsort())
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(2))
        offset = layer(torch.zeros(1, 7, dtype=torch.float64))[0]
        matrix = (layer(torch.eye(7, dtype=torch.float64))[0] - offset).T
        x = torch.randn(9, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        z, log_det = layer(x)
        torch.testing.assert_close(z, x @ matrix.T + layer.bias)
        torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix)[1].expand(9))
        torch.testing.assert_close(layer.inverse(z)[0], torch.linalg.solve(matrix, (z - layer.bias).T).T)


def test_float32_is_what_float64_gives_rounded():
    layer = LULinear(20)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
        x = torch.randn(50, 20, generator=torch.Generator().manual_seed(3))
        for direction in ("forward", "inverse"):
            z, log_det = getattr(layer.float(), direction)(x)
            exact, exact_log_det = getattr(layer.double(), direction)(x.double())
            assert z.dtype == log_det.dtype == torch.float32
            assert torch.equal(z, exact.float()) and torch.equal(log_det, exact_log_det.float())


def test_starts_as_a_permutation():
    x = torch.arange(6.0)[None]
    assert torch.equal(LULinear(6, permute=False)(x)[0], x)
    mixed = LULinear(6, generator=torch.Generator().manual_seed(0))(x)[0]
    assert not torch.equal(mixed, x) and torch.equal(mixed.sort().values, x)


def test_permutation_is_part_of_the_state():
    layer, twin = (LULinear(6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    twin.load_state_dict(layer.state_dict())
    x = torch.arange(6.0)[None]
    assert torch.equal(twin(x)[0], layer(x)[0])
