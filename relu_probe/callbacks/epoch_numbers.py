"""Numbers of epochs that go on over several fits of one probe."""


class EpochNumbers:
    """Gives the epochs of several fits, each of which begins at any number, numbers that rise.

    >>> numbers = EpochNumbers()
    >>> first = [numbers.of(epoch) for epoch in (0, 1)]
    >>> numbers.begin_fit()
    >>> first, numbers.of(0)
    ([0, 1], 2)
    """

    def __init__(self) -> None:
        self._next = 0
        self._shift: int | None = 0  # None before the first epoch of a fit

    def begin_fit(self) -> None:
        """Notes that the next epoch is the first of a fit."""
        self._shift = None

    def of(self, epoch: int) -> int:
        """Returns the number of Keras's epoch `epoch`: the same number, if it is larger than those before."""
        if self._shift is None:
            self._shift = max(0, self._next - epoch)
        number = int(epoch) + self._shift
        self._next = max(self._next, number + 1)
        return number
