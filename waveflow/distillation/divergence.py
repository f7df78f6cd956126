"""When a student is past saving."""

from waveflow.errors import InputError


class DivergenceWatch:
    """Stops a run whose KL rose beyond all bounds and stays there.

    Steps that are not finite are the trainer's to judge: it skips them, and stops after too many. What diverges must
    not be saved over what was good; before a save a tenth of the patience is therefore enough.

    Args:
        where: folder of the run, named in the error.
        margin: nats a dimension above the lowest KL so far that are too many.
        patience: steps in a row.
        save_every: steps between saves; 0 for none.

    Example:
        >>> watch = DivergenceWatch("runs/student", margin=1.0, patience=2)
        >>> for kl in (0.5, 9.0, 0.4, 9.0, 9.0):
        ...     watch(kl)
        Traceback (most recent call last):
        ...
        waveflow.errors.InputError: the student diverges: ...
    """

    def __init__(self, where: object, margin: float = 5.0, patience: int = 200, save_every: int = 0):
        self.where, self.margin, self.patience, self.save_every = where, margin, patience, save_every
        self._lowest, self._above = float("inf"), 0

    def __call__(self, kl: float, step: int = 0) -> None:
        """Take note of the KL of a step, in nats a dimension.

        Args:
            kl: found by the step.
            step: its number, from 0, as the trainer counts them.

        Raises:
            InputError: when there were ``patience`` such steps in a row, or a tenth of them before a save.
        """
        self._lowest = min(self._lowest, kl)
        self._above = self._above + 1 if kl > self._lowest + self.margin else 0
        saves = self.save_every > 0 and (step + 1) % self.save_every == 0
        if self._above >= (max(1, self.patience // 10) if saves else self.patience):
            raise InputError(
                f"the student diverges: for {self._above} steps in a row its KL from the teacher was more than "
                f"{self.margin:g} nats a dimension above the lowest, {self._lowest:.3g} (now {kl:.3g}); what was last "
                f"saved in {self.where} is intact: try a lower learning rate"
            )
