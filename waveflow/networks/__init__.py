"""Networks that produce the parameters of bijectors; none of them needs an inverse."""

from waveflow.networks.convolution import ChannelsLastConv1d
from waveflow.networks.coupling_net import CouplingNet, ZeroConv2d
from waveflow.networks.made import MADE
from waveflow.networks.masks import MaskedLinear, degree_mask
from waveflow.networks.mlp import MLP
from waveflow.networks.upsample import LinearUpsampler, TransposedUpsampler
from waveflow.networks.wavenet import FoldedWaveNetStack, WaveNetStack

__all__ = [
    "MADE",
    "MLP",
    "ChannelsLastConv1d",
    "CouplingNet",
    "FoldedWaveNetStack",
    "LinearUpsampler",
    "MaskedLinear",
    "TransposedUpsampler",
    "WaveNetStack",
    "ZeroConv2d",
    "degree_mask",
]
