"""MADE: a fully connected network whose i-th output sees only what comes before i."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveflow.context import Context, Ragged
from waveflow.networks.masks import MaskedLinear


class MADE(nn.Module):
    r"""Masked autoencoder for distribution estimation (Germain et al., 2015; arXiv:1502.03509).

    ``outputs`` numbers for every feature, each a function of the features before it in ``order``. Hidden units are
    sorted by degree (the place of the last feature they see), so that the masks are block-triangular and the network
    can be run feature by feature at the cost of one pass: :meth:`stepper`. The last layer starts at zero.

    Args:
        features: D.
        hidden: width of each hidden layer; with ``residual``, of each residual block, all the same.
        outputs: P, numbers per feature (a univariate map's ``params``).
        context: C, size of the context, added to the input of every hidden layer's activation; 0 for none.
        order: the features from first to last, a permutation of 0 ... D-1; None for 0, 1, ..., D-1.
        residual: whether hidden layers are pre-activation residual blocks of two layers (ResidualMADE: Nash & Durkan,
            2019; arXiv:1904.05626).
        activation: elementwise function.

    Shape:
        x (B, D) and context (B, C) to (B, P, D).

    A width below D makes some features blind to their closest predecessors. The network is computed in float32 under
    autocast too, since an inverse must meet the very parameters that the forward pass had.

    Raises:
        ValueError: if ``order`` is no permutation, a size is not positive, or the widths of residual blocks differ;
            (call) for another number of features, or a context that is missing, superfluous or of another size.

    Example:
        >>> made = MADE(3, hidden=(16,), outputs=2)
        >>> made(torch.zeros(5, 3)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (512, 512),
        outputs: int = 2,
        context: int = 0,
        order: Sequence[int] | Tensor | None = None,
        residual: bool = False,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ):
        super().__init__()
        if features < 1 or outputs < 1 or context < 0 or not hidden or min(hidden) < 1:
            raise ValueError(
                "MADE expects positive sizes, got "
                f"features={features}, hidden={tuple(hidden)}, outputs={outputs}, context={context}"
            )
        if residual and len(set(hidden)) > 1:
            raise ValueError(f"MADE expects residual blocks of one width, got {tuple(hidden)}")
        order = torch.arange(features) if order is None else torch.as_tensor(order)
        if order.is_floating_point() or not torch.equal(order.sort().values, torch.arange(features)):
            raise ValueError(f"MADE expects an order with each of 0 ... {features - 1} once, got {order.tolist()}")
        self.features, self.outputs, self.context = features, outputs, context
        self.event_shape = (features,)
        self.residual = residual
        self.activation = activation
        self.register_buffer("order", order)
        widths = [hidden[0]] * (1 + 2 * len(hidden)) if residual else hidden
        degrees = [_hidden_degrees(width, features, lowest=0 if context else 1) for width in widths]
        self.layers = nn.ModuleList(map(MaskedLinear, [order, *degrees], degrees))
        self.contexts = nn.ModuleList(nn.Linear(context, width, bias=False) for width in widths if context)
        self.last = MaskedLinear(degrees[-1], order.repeat(outputs), strict=True)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        ends = _ends(features, outputs, degrees)
        self.schedule = _schedule(ends)
        self._widths = torch.tensor([features, *map(len, degrees), outputs * features])
        self._ends = torch.tensor(ends)
        self._degrees = degrees[0], degrees[-1]
        self.register_load_state_dict_post_hook(_mask_by_order)
        _mask_by_order(self)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"MADE expects (B, {self.features}), got {tuple(x.shape)}")
        self._check_context(context)
        with torch.autocast(x.device.type, enabled=False):
            x, terms = self._widen(x), self._context_terms(context)
            stream = None
            for k, layer in enumerate(self.layers):
                y = layer(x)
                if terms:
                    y = y + terms[k]
                if self.residual and k % 2 == 0:
                    y = stream = y if stream is None else y + stream
                x = self.activation(y)
            return self.last(x).unflatten(1, (self.outputs, self.features))

    def positions(self, event: tuple[int, ...]) -> Tensor:
        """The features in the order in which a stepper meets them."""
        return self.order

    def stepper(self, batch: int, context: Tensor | None = None) -> "MADEStepper":
        """The same function feature by feature, without gradients; all steps together cost about one pass."""
        self._check_context(context)
        return MADEStepper(self, batch, context)

    def rectified(self, context: Tensor | None = None) -> "Rectified | None":
        """The network as a compiled inverse reads it, or None if it has residual blocks or is not of ReLUs."""
        self._check_context(context)
        if self.residual or self.activation not in (F.relu, torch.relu):
            return None
        with torch.no_grad():
            weights, biases = self._sorted()
            biases = [bias[:, None] for bias in biases]
            if context is not None:
                columns = self._widen(context).t()
                *biases, last = biases
                biases = [torch.addmm(b, layer.weight, columns) for b, layer in zip(biases, self.contexts, strict=True)]
                biases.append(last.expand(-1, len(context)))
            flat = torch.cat([w.flatten() for w in weights])
            return Rectified(flat, torch.cat(biases), self._widths, self._ends, self.order)

    def _sorted(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights (units, inputs) and biases of all layers; first inputs and last outputs in order, by feature."""

        def by_feature(outputs: Tensor) -> Tensor:
            return outputs.unflatten(0, (self.outputs, self.features)).transpose(0, 1)[self.order].flatten(0, 1)

        weights = [self.layers[0].weight[:, self.order], *(layer.weight for layer in self.layers[1:])]
        biases = [layer.bias for layer in self.layers]
        return [*weights, by_feature(self.last.weight)], [*biases, by_feature(self.last.bias)]

    def _widen(self, x: Tensor) -> Tensor:
        return x.to(torch.promote_types(x.dtype, self.last.weight.dtype))

    def _context_terms(self, context: Tensor | None) -> list[Tensor]:
        return [layer(self._widen(context)) for layer in self.contexts]

    def _check_context(self, context: Context) -> None:
        if context is None and self.context:
            raise ValueError(f"MADE expects a context of {self.context} numbers, got None")
        if context is None:
            return
        got = "a padded batch" if isinstance(context, Ragged) else tuple(context.shape)
        if not self.context:
            raise ValueError(f"MADE expects no context, got {got}")
        if isinstance(context, Ragged) or context.ndim != 2 or context.shape[1] != self.context:
            raise ValueError(f"MADE expects a context (B, {self.context}), got {got}")


class Rectified(NamedTuple):
    """A :class:`MADE` of ReLUs whose features are in order, as ``waveflow.kernels.made_inverse`` explains.

    Attributes:
        weights: of all layers in one, flat.
        biases: (units of all layers, 1), or (..., B) with a context.
        widths: (layers + 1,), numbers into and out of each layer.
        ends: (layers + 1, D + 1), how many of them follow from so many features.
        order: (D,).
    """

    weights: Tensor
    biases: Tensor
    widths: Tensor
    ends: Tensor
    order: Tensor


def _hidden_degrees(width: int, features: int, lowest: int) -> Tensor:
    # Degree 0 sees no feature: useful where there is a context, which also the first feature should follow.
    lowest = min(lowest, features - 1)
    levels = features - lowest
    if width >= levels:
        return lowest + torch.arange(width) * levels // width
    return lowest + torch.arange(width) * (levels - 1) // max(width - 1, 1)


def _mask_by_order(made: MADE, _=None) -> None:
    place = made.order.argsort() + 1
    first, last = (d.to(place.device) for d in made._degrees)
    made.layers[0].set_degrees(place, first)
    made.last.set_degrees(last, place.repeat(made.outputs))


_GROUP = 8  # features whose units are brought up to date together
_IN_PLACE = {F.relu: torch.relu_, F.silu: partial(F.silu, inplace=True), torch.tanh: torch.tanh_}

_Product = tuple[int, int, int, int, int]  # layer, first row of its weight, rows, first column, columns


def _ends(features: int, outputs: int, degrees: list[Tensor]) -> list[list[int]]:
    """At [k][n + 1], how many of the numbers that layer k takes, or at last of the outputs, follow from n features."""
    hidden = [[0, *torch.searchsorted(d, torch.arange(features), right=True).tolist()] for d in degrees]
    return [[0, *range(features)], *hidden, [outputs * n for n in range(features + 1)]]


def _schedule(ends: list[list[int]]) -> list[tuple[list[_Product], list[_Product]]]:
    """What a stepper multiplies when 0, 1, ..., D - 1 features are known: first for a group of them, then for one."""
    features, schedule = len(ends[0]) - 1, []
    for n in range(features):
        start = n - n % _GROUP
        stop = min(start + _GROUP, features)
        gather, advance = [], []
        for k, (ins, outs) in enumerate(pairwise(ends)):
            if n == start:
                gather.append((k, outs[start], outs[stop] - outs[start], 0, ins[start]))
            if outs[n] < outs[n + 1]:
                advance.append((k, outs[n], outs[n + 1] - outs[n], ins[start], ins[n + 1] - ins[start]))
        schedule.append((gather, advance))
    return schedule


class MADEStepper:
    """Runs a :class:`MADE` one feature at a time, each hidden unit once: when all that it sees is known.

    Activations are kept feature by feature, (units, B), so that every product takes a block of a weight and some rows
    of a buffer, all dense, and is added where it belongs. No masks are needed: what a unit must not see is not there
    yet. Before each group of features one large product per layer gathers what the group's units see of all groups
    before; the rest is added by small products when it is known.

    Args:
        made: the network; its weights are read now.
        batch: B.
        context: (B, C), or None.
    """

    def __init__(self, made: MADE, batch: int, context: Tensor | None = None):
        self._made, self._known = made, 0
        self._activation_ = _IN_PLACE.get(made.activation)
        with torch.no_grad(), torch.autocast(made.order.device.type, enabled=False):
            weights, biases = made._sorted()
            self._weights, self._biases = [w.detach() for w in weights], [b.detach()[:, None] for b in biases]
            for k, term in enumerate(made._context_terms(context)):
                self._biases[k] = self._biases[k] + term.t()
            new = self._weights[-1].new_empty
            self._values = [new(w.shape[1], batch) for w in self._weights] + [new(len(self._weights[-1]), batch)]
            self._advance()

    def params(self) -> Tensor:
        """Parameters of the next feature in order, (B, P); not to be written to."""
        return self._params

    def push(self, x: Tensor) -> None:
        """Tell the next feature in order, (B,)."""
        self._values[0][self._known] = x.detach()
        self._known += 1
        if self._known == self._made.features:
            return
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                self._advance()
        else:  # not even a context is entered, at a price that so small steps would feel
            self._advance()

    def _advance(self) -> None:
        # Compute all that follows from the features known and from no fewer.
        gather, advance = self._made.schedule[self._known]
        for k, row, rows, _, columns in gather:
            y, bias = self._values[k + 1].narrow(0, row, rows), self._biases[k].narrow(0, row, rows)
            if columns:
                weight = self._weights[k].narrow(0, row, rows).narrow(1, 0, columns)
                torch.addmm(bias, weight, self._values[k].narrow(0, 0, columns), out=y)
            else:
                y.copy_(bias)
        stream = None
        for k, row, rows, column, columns in advance:
            y, weight = self._values[k + 1].narrow(0, row, rows), self._weights[k].narrow(0, row, rows)
            y.addmm_(weight.narrow(1, column, columns), self._values[k].narrow(0, column, columns))
            if k + 1 == len(self._weights):
                self._params = y.t()
                return
            if self._made.residual and k % 2 == 0:
                stream = y.clone() if stream is None else stream.add_(y)
                y.copy_(stream)
            if self._activation_:
                self._activation_(y)
            else:
                y.copy_(self._made.activation(y))
