"""NICE: non-linear independent components estimation (Dinh, Krueger & Bengio, 2014; arXiv:1410.8516)."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

from waveflow.bijectors import ActNorm, Alternating, Bijector, Chain, Coupling, Flatten, Shift
from waveflow.distributions import Base, StandardLogistic, StandardNormal
from waveflow.errors import InputError
from waveflow.models.image_flow import ImageFlow, ImageFlowConfig
from waveflow.networks import MLP


@dataclass(frozen=True)
class NICEConfig(ImageFlowConfig):
    """What a NICE is made of; the defaults are the paper's for MNIST. Further fields as in :class:`ImageFlowConfig`.

    Args:
        layers: additive couplings.
        hidden: widths of the hidden layers of each coupling's network.
        prior: distribution of the latent, ``"logistic"`` or ``"gaussian"``.

    Raises:
        InputError: for a size below 1, images with an odd number of pixels, or an unknown prior.
    """

    layers: int = 4
    hidden: tuple[int, ...] = (1000,) * 5
    prior: Literal["logistic", "gaussian"] = "logistic"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "hidden", tuple(self.hidden))  # a list where it comes from JSON
        for name, size in {"layers": self.layers, "hidden": min(self.hidden, default=0)}.items():
            if size < 1:
                raise InputError(f"NICE expects {name} of at least 1, got {getattr(self, name)}")
        if prod(self.image_shape) % 2:
            raise InputError(f"NICE expects an even number of pixels and channels, got {self.image_shape}")
        self._require_choice("prior", ("logistic", "gaussian"))


class NICE(ImageFlow):
    r"""Each pixel is scaled; then even and odd ones take turns in being shifted by what follows from the others.

    The paper scales last. It is the same family of maps, as scales :math:`s_1, s_2` of the two halves pass through a
    coupling: :math:`s_2 (x_2 + m(x_1)) = s_2 x_2 + m'(s_1 x_1)` with :math:`m'(u) = s_2\, m(u / s_1)`. But it begins
    elsewhere. The scales are an ``ActNorm``, fitted to the first batch, and in the hundreds for a pixel that is nearly
    always black: coming last, they multiply the gradients of all networks, whose rectifiers fall silent for good
    within some hundred steps. The shift of the ActNorm adds nothing that the couplings' biases do not have.

    Constructed with the fields of :class:`NICEConfig` as keywords, or by ``from_preset(name)``:

    - ``mnist``: the paper's for 28x28, 4 couplings of 5 hidden layers of 1000, 19.2 M parameters.
    - ``cifar10``: 4 hidden layers of 2000, without the paper's whitening of the data.
    - ``digits``: scikit-learn's 8x8 digits of 17 values.

    Example:
        >>> import torch
        >>> model = NICE.from_preset("digits")
        >>> images = model.sample(5)
        >>> images.shape, model.encode(images).shape, torch.equal(model.decode(model.encode(images)), images)
        (torch.Size([5, 1, 8, 8]), torch.Size([5, 64]), True)
    """

    Config = NICEConfig
    PRESETS: ClassVar = {
        "mnist": {},
        "cifar10": {"channels": 3, "height": 32, "width": 32, "hidden": (2000,) * 4},
        "digits": {"height": 8, "width": 8, "values": 17, "hidden": (256,) * 3},
    }
    config: NICEConfig

    @staticmethod
    def bijector(config: NICEConfig) -> Bijector:
        return Chain([Flatten(config.image_shape), Chain(_layers(config), config.memory)])

    @staticmethod
    def base(config: NICEConfig) -> Base:
        return StandardLogistic() if config.prior == "logistic" else StandardNormal()


def _layers(config: NICEConfig) -> Iterator[Bijector]:
    size = prod(config.image_shape)
    yield ActNorm(size)
    for i in range(config.layers):
        network = MLP(size // 2, size // 2, config.hidden, config.classes)
        yield Coupling(Alternating(swap=i % 2 == 1), network, Shift())
