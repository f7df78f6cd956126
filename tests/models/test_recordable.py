"""What a CUDA graph records of synthesis must ask the host nothing; which operations would can be told on a CPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from waveflow.models import ParallelWaveNet, WaveFlow, WaveGlow

WAITING = ("_local_scalar_dense", "_linalg_check_errors", "linalg", "nonzero", "equal", "masked_select", "lift_fresh")


class Operations(TorchDispatchMode):
    """Notes the names of what is called."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "model",
    [
        lambda: WaveGlow(channels=8, layers=2, flows=4, early_every=2),
        lambda: WaveGlow.from_preset("tiny"),
        lambda: WaveFlow.from_preset("tiny"),
        lambda: ParallelWaveNet.from_preset("tiny"),
        lambda: ParallelWaveNet(flows=(2, 2)),
    ],
)
def test_synthesis_asks_the_host_nothing(model, dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")  # as on a GPU, nothing is compiled
    fast = model().for_inference(dtype)
    z, mel = torch.randn(1, *fast.latent_shape(4)), torch.randn(1, 80, 4) - 5
    with torch.no_grad(), Operations() as operations:
        fast.layers.inverse(z, mel)
    assert any("convolution" in name or name.endswith("mm") for name in operations.names)
    assert [name for name in operations.names if any(word in name for word in WAITING)] == []
