"""A fully connected network, for couplings of vectors."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.context import Context, Ragged
from waveflow.networks.dense import linear


class MLP(nn.Module):
    """Linear layers with an activation between them; the last starts at zero.

    Args:
        inputs: numbers that it sees.
        outputs: numbers that it gives.
        hidden: width of each hidden layer.
        context: C, size of the context, seen beside the inputs; 0 for none.
        activation: elementwise function.

    Shape:
        x (B, inputs) and context (B, C) to (B, outputs).

    Raises:
        ValueError: if a size is not positive; (call) for a context that is missing, superfluous or of another size.

    Example:
        >>> MLP(2, 3, hidden=(16,), context=1)(torch.ones(5, 2), torch.ones(5, 1)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (512, 512),
        context: int = 0,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ):
        super().__init__()
        if inputs < 1 or outputs < 1 or context < 0 or not hidden or min(hidden) < 1:
            raise ValueError(
                "MLP expects positive sizes, got "
                f"inputs={inputs}, outputs={outputs}, hidden={tuple(hidden)}, context={context}"
            )
        self.context = context
        self.activation = activation
        self.last = nn.Linear(hidden[-1], outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([inputs + context, *hidden]))

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        if context is None and self.context:
            raise ValueError(f"MLP expects a context of {self.context} numbers, got None")
        if context is not None:
            got = "a padded batch" if isinstance(context, Ragged) else tuple(context.shape)
            if not self.context:
                raise ValueError(f"MLP expects no context, got {got}")
            if isinstance(context, Ragged) or context.ndim != 2 or context.shape[1] != self.context:
                raise ValueError(f"MLP expects a context (B, {self.context}), got {got}")
            x = torch.cat([x, context], 1)
        for layer in self.layers:
            x = self.activation(linear(x, layer.weight, layer.bias))
        return linear(x, self.last.weight, self.last.bias)
