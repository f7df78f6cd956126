"""WaveGlow, and the reader of NVIDIA's checkpoints of it."""

from waveflow.models.waveglow.model import WaveGlow, WaveGlowConfig
from waveflow.models.waveglow.nvidia import import_nvidia

__all__ = ["WaveGlow", "WaveGlowConfig", "import_nvidia"]
