"""Networks that produce the parameters of bijectors; none of them needs an inverse."""

from waveflow.networks.convolution import ChannelsLastConv1d
from waveflow.networks.coupling_net import CouplingNet, ZeroConv2d
from waveflow.networks.gated_pixelcnn import GatedPixelCNNStack
from waveflow.networks.made import MADE
from waveflow.networks.masked_conv import MaskedConv1d, MaskedConv2d
from waveflow.networks.masks import MaskedLinear, degree_mask
from waveflow.networks.mlp import MLP
from waveflow.networks.pixelcnn import PixelCNNStack
from waveflow.networks.receptive_field import receptive_field
from waveflow.networks.resnet import ResNet
from waveflow.networks.upsample import Knots, LinearUpsampler, SpectrogramUpsampler, TransposedUpsampler
from waveflow.networks.waveflow_stack import FoldedWaveFlowStack, WaveFlowStack
from waveflow.networks.wavenet import FoldedWaveNetStack, WaveNetStack
from waveflow.networks.wavenet_stepper import WaveNetStepper
from waveflow.networks.wavenet_stream import WaveNetStream
from waveflow.networks.wavenet_weights import CausalWeights

__all__ = [
    "MADE",
    "MLP",
    "CausalWeights",
    "ChannelsLastConv1d",
    "CouplingNet",
    "FoldedWaveFlowStack",
    "FoldedWaveNetStack",
    "GatedPixelCNNStack",
    "Knots",
    "LinearUpsampler",
    "MaskedConv1d",
    "MaskedConv2d",
    "MaskedLinear",
    "PixelCNNStack",
    "ResNet",
    "SpectrogramUpsampler",
    "TransposedUpsampler",
    "WaveFlowStack",
    "WaveNetStack",
    "WaveNetStepper",
    "WaveNetStream",
    "ZeroConv2d",
    "degree_mask",
    "receptive_field",
]
