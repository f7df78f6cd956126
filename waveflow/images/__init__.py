"""What people want to see of a model of images: grids, blends, faces made to smile."""

from waveflow.images.attributes import AttributeVector, attribute_vector, fingerprint, manipulate
from waveflow.images.grid import image_grid, save_grid
from waveflow.images.interpolation import interpolate, linear, spherical
from waveflow.images.latents import LatentModel
from waveflow.images.temperature import Sampler, temperature_sweep

__all__ = [
    "AttributeVector",
    "LatentModel",
    "Sampler",
    "attribute_vector",
    "fingerprint",
    "image_grid",
    "interpolate",
    "linear",
    "manipulate",
    "save_grid",
    "spherical",
    "temperature_sweep",
]
