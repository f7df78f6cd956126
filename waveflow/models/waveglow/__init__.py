"""WaveGlow, and the reader of NVIDIA's checkpoints of it."""

from waveflow.models.waveglow.model import WaveGlow, WaveGlowConfig

__all__ = ["WaveGlow", "WaveGlowConfig"]
