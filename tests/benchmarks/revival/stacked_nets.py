"""Many small nets on a leading axis of one model, each of which trains as it would alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

K, L = tf.keras, tf.keras.layers


class OfOneNet(K.initializers.Initializer):
    """Draws the kernel `(nets, inputs, units)` of a stack: normal, with the standard deviation He et al. ask of one net."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def __call__(self, shape: Any, dtype: Any = None, **more: Any) -> Any:
        normal = K.initializers.RandomNormal(0.0, float(np.sqrt(2 / shape[1])), seed=self.seed)
        return normal(shape, dtype)

    def get_config(self) -> dict[str, Any]:
        """The seed."""
        return {"seed": self.seed}


def he_normal(layer: int) -> tuple[Any, Any]:
    """The initialisers of a layer's kernel and bias: He normal, zero bias."""
    return OfOneNet(seed=int(np.random.randint(2**31))), "zeros"


class Asymmetric(OfOneNet):
    """Randomised asymmetric initialisation (Lu et al. 2019): of the weights and the bias of each unit one is Beta(2, 1).

    Without the bias, which stands in another variable, one of the weights of each unit is drawn so.
    """

    def __call__(self, shape: Any, dtype: Any = None, **more: Any) -> Any:
        rng = np.random.default_rng(self.seed)
        kernel = rng.normal(0, 0.6007 * np.sqrt(2) / np.sqrt(shape[1]), shape)
        nets, inputs, units = shape
        chosen = rng.integers(0, inputs, (nets, 1, units))
        np.put_along_axis(kernel, chosen, rng.beta(2, 1, (nets, 1, units)), axis=1)
        return tf.constant(kernel.astype("float32"))


def randomised_asymmetric(layer: int) -> tuple[Any, Any]:
    """The initialisers of a layer's kernel and bias."""
    return Asymmetric(seed=int(np.random.randint(2**31))), "zeros"


def birth_nets(nets: int, depth: int, initializer: Callable[[int], tuple[Any, Any]], activation: Any = "relu") -> Any:
    """`nets` nets with `depth` hidden layers of width 2, one input and one output each."""
    layers = []
    for index in range(depth + 1):
        kernel, bias = initializer(index)
        last = index == depth
        layers.append(
            L.EinsumDense(
                "bni,nio->bno",
                (nets, 1 if last else 2),
                activation=None if last else activation,
                bias_axes="no",
                kernel_initializer=kernel,
                bias_initializer=bias,
                name="out" if last else f"hidden_{index}",
            )
        )
    return K.Sequential([K.Input((nets, 1)), *layers])


def collapsed(model: Any) -> Any:
    """`(nets,)` bool: the standard deviation of the prediction on a grid is below 1e-3."""
    nets = model.input_shape[1]
    grid = np.linspace(-np.sqrt(3), np.sqrt(3), 201, dtype=np.float32)[:, None, None]
    return np.std(np.asarray(model(np.broadcast_to(grid, (201, nets, 1)))), axis=0)[:, 0] < 1e-3
