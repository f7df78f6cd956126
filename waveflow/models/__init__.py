"""Models, one file a paper."""

from waveflow.models.coupling_flow import CouplingFlow, CouplingFlowConfig
from waveflow.models.glow import Glow, GlowConfig
from waveflow.models.iaf import IAF, IAFConfig
from waveflow.models.image_flow import ImageFlow, ImageFlowConfig
from waveflow.models.image_model import ImageModel, ImageModelConfig
from waveflow.models.maf import MAF, MAFConfig
from waveflow.models.masked_conv_flow import MaskedConvFlow, MaskedConvFlowConfig
from waveflow.models.masked_conv_iaf import MaskedConvIAF, MaskedConvIAFConfig
from waveflow.models.nice import NICE, NICEConfig
from waveflow.models.nsf import NSF, NSFConfig
from waveflow.models.parallel_wavenet import ParallelWaveNet, ParallelWaveNetConfig
from waveflow.models.pixelcnn import GatedPixelCNN, GatedPixelCNNConfig, PixelCNN, PixelCNNConfig
from waveflow.models.planar_flow import PlanarFlow, PlanarFlowConfig
from waveflow.models.pretrained import PretrainedModel, load_model, read_config
from waveflow.models.realnvp import RealNVP, RealNVPConfig
from waveflow.models.shipped import best_vocoder, shipped_models, shipped_vocoders
from waveflow.models.spline_iaf import SplineIAF, SplineIAFConfig
from waveflow.models.vector_flow import VectorFlow, VectorFlowConfig
from waveflow.models.vocoder_model import VocoderConfig, VocoderModel, load_vocoder
from waveflow.models.waveflow_model import WaveFlow, WaveFlowConfig
from waveflow.models.waveglow import WaveGlow, WaveGlowConfig
from waveflow.models.wavenet import WaveNet, WaveNetConfig

__all__ = [
    "IAF",
    "MAF",
    "NICE",
    "NSF",
    "CouplingFlow",
    "CouplingFlowConfig",
    "GatedPixelCNN",
    "GatedPixelCNNConfig",
    "Glow",
    "GlowConfig",
    "IAFConfig",
    "ImageFlow",
    "ImageFlowConfig",
    "ImageModel",
    "ImageModelConfig",
    "MAFConfig",
    "MaskedConvFlow",
    "MaskedConvFlowConfig",
    "MaskedConvIAF",
    "MaskedConvIAFConfig",
    "NICEConfig",
    "NSFConfig",
    "ParallelWaveNet",
    "ParallelWaveNetConfig",
    "PixelCNN",
    "PixelCNNConfig",
    "PlanarFlow",
    "PlanarFlowConfig",
    "PretrainedModel",
    "RealNVP",
    "RealNVPConfig",
    "SplineIAF",
    "SplineIAFConfig",
    "VectorFlow",
    "VectorFlowConfig",
    "VocoderConfig",
    "VocoderModel",
    "WaveFlow",
    "WaveFlowConfig",
    "WaveGlow",
    "WaveGlowConfig",
    "WaveNet",
    "WaveNetConfig",
    "best_vocoder",
    "load_model",
    "load_vocoder",
    "read_config",
    "shipped_models",
    "shipped_vocoders",
]
