"""Models, one file a paper."""

from waveflow.models.pretrained import PretrainedModel, load_model, read_config
from waveflow.models.waveglow import WaveGlow, WaveGlowConfig

__all__ = ["PretrainedModel", "WaveGlow", "WaveGlowConfig", "load_model", "read_config"]
