"""What of a run is neither weights nor optimizer."""

from dataclasses import dataclass, field


@dataclass
class TrainingState:
    """Where a run stands; part of every checkpoint, and what ``fit`` returns.

    Attributes:
        step: steps done, the skipped ones included.
        skipped: steps skipped for a non-finite loss or gradient.
        bad_in_row: how many steps lie directly behind that were skipped, or whose loss had exploded.
        first_loss: the first finite loss, which tells an exploded one; None before any.
        exploded: whether the loss of the last step had.
        before: figures of the first validation, usually before any training.
        after: figures of the last one.
        validated: step of the last validation that was due, -1 before any.
        sums: figures summed since they were last logged.
        summed: steps in these sums.
    """

    step: int = 0
    skipped: int = 0
    bad_in_row: int = 0
    first_loss: float | None = None
    exploded: bool = False
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    validated: int = -1
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0

    def add(self, figures: dict[str, float]) -> None:
        """Take a step's figures into the sums."""
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.summed += 1

    def means(self) -> dict[str, float]:
        """Means since the figures were last logged; empty if there were no good steps."""
        return {name: total / self.summed for name, total in self.sums.items()}

    def clear(self) -> None:
        """Begin new sums."""
        self.sums, self.summed = {}, 0
