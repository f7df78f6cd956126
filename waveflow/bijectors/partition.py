"""How a coupling divides an event into a kept and a changed part."""

import torch
from torch import Tensor, nn


class Partition(nn.Module):
    """Divides x (B, *event) into two parts and puts them together again.

    Attributes:
        in_place: whether the conditioner sees the kept part in its place, with zeros for the changed one (and answers
            for every element), instead of the kept part alone.
    """

    in_place: bool = False

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(kept, changed)."""
        raise NotImplementedError

    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        """The inverse of ``split``."""
        raise NotImplementedError

    def expects(self, event: tuple[int, ...]) -> str | None:
        """In words, the event shapes that can be divided if ``event`` cannot, else None."""
        return None if event[0] >= 2 else "at least 2 channels"


class Halves(Partition):
    """The first half of the channels is kept, the second changed; ``swap`` exchanges them.

    Of an odd number of channels the first half is the smaller one.
    """

    def __init__(self, swap: bool = False):
        super().__init__()
        self.swap = swap

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        half = x.shape[1] // 2
        first, second = x[:, :half], x[:, half:]
        return (second, first) if self.swap else (first, second)

    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        return torch.cat((changed, kept) if self.swap else (kept, changed), 1)


class Alternating(Partition):
    """Channels (or features) of even index are kept, odd ones changed; ``swap`` exchanges them.

    Raises:
        ValueError: from a coupling, for an odd number of channels.
    """

    def __init__(self, swap: bool = False):
        super().__init__()
        self.swap = swap

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        even, odd = x[:, 0::2], x[:, 1::2]
        return (odd, even) if self.swap else (even, odd)

    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        return torch.stack((changed, kept) if self.swap else (kept, changed), 2).flatten(1, 2)

    def expects(self, event: tuple[int, ...]) -> str | None:
        return None if event[0] % 2 == 0 else "an even number of channels"


class Checkerboard(Partition):
    """Pixels whose row plus column is even are kept, the others changed; ``swap`` exchanges them.

    Both parts are (B, C, H, W / 2); the conditioner sees the kept pixels in place (RealNVP: Dinh et al., 2017;
    arXiv:1605.08803, figure 3). Of signals (B, C, T) the even samples are kept.

    Raises:
        ValueError: from a coupling, for an odd width.
    """

    in_place = True

    def __init__(self, swap: bool = False):
        super().__init__()
        self.swap = swap

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        left, right = x[..., 0::2], x[..., 1::2]
        right_kept = self._right_kept(left)
        return torch.where(right_kept, right, left), torch.where(right_kept, left, right)

    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        right_kept = self._right_kept(kept)
        left, right = torch.where(right_kept, changed, kept), torch.where(right_kept, kept, changed)
        return torch.stack((left, right), -1).flatten(-2)

    def expects(self, event: tuple[int, ...]) -> str | None:
        if len(event) < 2 or event[-1] % 2:
            return "channels and an even width (C, ..., W)"
        return None

    def _right_kept(self, half: Tensor) -> Tensor:
        if half.ndim < 4:
            return torch.tensor(self.swap, device=half.device)
        return (torch.arange(half.shape[-2], device=half.device) % 2 != int(self.swap))[:, None]
