"""The Keras callback `Revive`: brings dead neurons back at the ends of epochs."""

from collections.abc import Callable
from copy import copy
from typing import Any

from relu_probe.callbacks.guarded_callback import GuardedCallback, guarded
from relu_probe.callbacks.relu_probe import ReluProbe
from relu_probe.cure.operation import Method, Options
from relu_probe.cure.revival import Revival
from relu_probe.cure.revive import check_before_fit, run
from relu_probe.utils.callback_list import fit_under_way
from relu_probe.utils.validation import check_positive, is_whole


class Revive(GuardedCallback):
    """Calls `revive` at the ends of epochs, so that neurons that died can learn again.

    List it after the probe, whose report of the epoch then shows the neurons that died in it, and before `ModelCheckpoint`
    and `BackupAndRestore`, which then save the revived model. It adds "revived", the number of neurons revived, to `logs`.
    A fit in which nothing is to be revived is bit-identical to one without it. A failure does not stop the training: one
    warning, everything as before, and no further attempt.

    Args:
        data: what `revive` takes, or a function of the epoch that returns such data, for example the newest samples.
        every, start, stop: it acts at the ends of the epochs e with start <= e < stop and (e - start) % every == 0; without a
            stop if that is None.
        strict: a failure stops the training.
        layers, method, fire, confidence, min_rate, validation, batch_size: as `revive` takes them.
        seed: of the weights that are drawn; with the epoch and the layer it fixes them. None is 0.

    Attributes:
        revivals: epoch -> its `Revival`, of the newest fit; cleared when a fit begins.

    Raises:
        ValueError, TypeError: at once if an argument is wrong; before the first step if the model or the data is wrong.

    >>> import tensorflow as tf
    >>> model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(
    ...     4, "relu", bias_initializer=tf.keras.initializers.Constant(-50.0)), tf.keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = tf.random.normal((100, 3)), tf.ones((100, 1))
    >>> model.fit(x, y, epochs=2, verbose=0, callbacks=[Revive((x, y))]).history["revived"]
    [4.0, 0.0]
    """

    def __init__(
        self,
        data: Any | Callable[[int], Any],
        *,
        every: int = 1,
        start: int = 0,
        stop: int | None = None,
        strict: bool = False,
        layers: Any = None,
        method: Method = "cause",
        fire: float = 0.5,
        confidence: float = 0.95,
        min_rate: float = 0.05,
        validation: Any = None,
        seed: int | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(strict)
        self.data, self.validation = data, validation
        self.every = check_positive("every", every)
        for name, epoch in (("start", start), ("stop", stop)):
            if not (is_whole(epoch, 0) or (name == "stop" and epoch is None)):
                raise ValueError(f"{name} is {epoch!r}; expected the number of an epoch, counted from 0.")
        self.start, self.stop, self.seed = start, stop, seed or 0
        self.options = Options(layers, method, fire, confidence, min_rate, self.seed, batch_size)
        self.options.check()
        self.revivals: dict[int, Revival] = {}

    @guarded(ValueError)
    def on_train_begin(self, logs: Any = None) -> None:
        """Forgets the previous fit, and checks what can be checked before the first step."""
        self.revivals = {}
        if self.model.built and not callable(self.data):
            check_before_fit(self.model, self.data, self.options)

    @guarded()
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Revives the dead neurons, if it is one of its epochs."""
        if epoch >= self.start and (self.stop is None or epoch < self.stop) and (epoch - self.start) % self.every == 0:
            self._error_policy.run("reviving", lambda: self._revive(epoch))
        revival = self.revivals.get(epoch)
        if logs is not None:  # in every epoch, or CSVLogger and History get out of step
            logs["revived"] = 0.0 if revival is None else float(revival.revived)
        if revival is not None and (probe := _probe_with_event_file()) is not None:
            counts = dict.fromkeys(revival.before, 0) | {k: len(v.neurons) for k, v in revival.layers.items()}
            probe.log_revived(counts, epoch)

    def _revive(self, epoch: int) -> None:
        data = self.data(epoch) if callable(self.data) else self.data
        self.revivals[epoch] = run(self.model, data, self.validation, self.options._replace(seed=(self.seed, epoch)))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Revive":
        """A copy for another fit: it shares the data, and has no revivals."""
        copied = copy(self)
        copied.revivals = {}
        return copied


def _probe_with_event_file() -> ReluProbe | None:
    """The first probe of the running fit that writes to TensorBoard."""
    callbacks = getattr(fit_under_way(), "callbacks", [])
    return next((c for c in callbacks if isinstance(c, ReluProbe) and c.log_dir is not None), None)
