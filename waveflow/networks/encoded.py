"""A conditioner that is given an encoding of the context."""

from typing import Any

from torch import Tensor, nn

from waveflow.context import Context


class Encoded(nn.Module):
    """A network of the encoded context; to conditioners what ``Conditioned`` is to bijectors.

    Args:
        encoder: maps the raw context to what ``network`` is conditioned on, e.g. an upsampler of mels.
        network: called as ``network(x, context)``; its stepper is had through this one.
    """

    def __init__(self, encoder: nn.Module, network: nn.Module):
        super().__init__()
        self.encoder, self.network = encoder, network

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        return self.network(x, self.encoder(context))

    def stepper(self, batch: int, context: Context = None) -> Any:
        """As of the network."""
        return self.network.stepper(batch, self.encoder(context))
