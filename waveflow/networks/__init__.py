"""Networks that produce the parameters of bijectors; none of them needs an inverse."""

from waveflow.networks.convolution import ChannelsLastConv1d
from waveflow.networks.upsample import LinearUpsampler, TransposedUpsampler
from waveflow.networks.wavenet import FoldedWaveNetStack, WaveNetStack

__all__ = ["ChannelsLastConv1d", "FoldedWaveNetStack", "LinearUpsampler", "TransposedUpsampler", "WaveNetStack"]
