"""What networks over images drawn pixel by pixel have in common."""

import torch
from torch import Tensor, nn

from waveflow.context import Context, Ragged


class PixelStack(nn.Module):
    """A network that gives ``outputs`` numbers for every number of an image, seeing only those before it.

    The order is that of PixelRNN (van den Oord et al., 2016; arXiv:1601.06759): rows from above, pixels from the left,
    the colours of a pixel from the first. A subclass writes ``forward`` and ``stepper``.

    Args:
        shape: (C, H, W) of the images.
        outputs: P, numbers for each number of the image.
        context: number of classes, whose one-hot vectors the network is given; 0 for none.

    Raises:
        ValueError: if a size is not positive.
    """

    def __init__(self, shape: tuple[int, int, int], outputs: int, context: int):
        super().__init__()
        if len(shape) != 3 or min(shape) < 1 or outputs < 1 or context < 0:
            raise ValueError(
                f"{type(self).__name__} expects an image (C, H, W) and positive sizes, "
                f"got shape={tuple(shape)}, outputs={outputs}, context={context}"
            )
        self.event_shape = tuple(shape)
        self.outputs, self.context = outputs, context

    def positions(self, event: tuple[int, ...]) -> Tensor:
        """Flat positions of the numbers of an image (C, H, W) from first to last, (C * H * W,)."""
        colours, height, width = event
        return torch.arange(colours * height * width).reshape(colours, height * width).t().flatten()

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or tuple(x.shape[1:]) != self.event_shape:
            expected = ", ".join(map(str, self.event_shape))
            raise ValueError(f"{type(self).__name__} expects (B, {expected}), got {tuple(x.shape)}")
        return x.to(torch.promote_types(x.dtype, self.last.weight.dtype))

    def _check_context(self, context: Context) -> None:
        name = type(self).__name__
        if context is None and self.context:
            raise ValueError(f"{name} expects a context of {self.context} numbers, got None")
        if context is None:
            return
        got = "a padded batch" if isinstance(context, Ragged) else tuple(context.shape)
        if not self.context:
            raise ValueError(f"{name} expects no context, got {got}")
        if isinstance(context, Ragged) or context.ndim != 2 or context.shape[1] != self.context:
            raise ValueError(f"{name} expects a context (B, {self.context}), got {got}")
