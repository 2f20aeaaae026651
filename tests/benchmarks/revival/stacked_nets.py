"""Many small nets on a leading axis of one model, each of which trains as it would alone.

Inputs, targets and predictions are `(samples, nets, features)`, and a loss is summed over the nets. So the gradient of each
net is its own, and so are its steps, as long as the optimizer treats each weight by itself.
"""

from typing import Any

import numpy as np
import tensorflow as tf

K, L = tf.keras, tf.keras.layers
# The variance of a weight times (inputs, inputs + units) of one net. "he_uniform" and "linear_uniform" are PyTorch's
# `kaiming_uniform_` with the nonlinearities "relu" and "linear".
_VARIANCES = {"he_normal": (2, None), "he_uniform": (2, None), "linear_uniform": (1, None), "glorot_uniform": (None, 2)}


class OfOneNet(K.initializers.Initializer):
    """Draws the kernel `(nets, inputs, units)` of a stack with the variance that is usual for one net.

    Keras's own initialisers would take the axis of the nets for places of a convolution.

    Args:
        kind: "he_normal", "he_uniform", "linear_uniform" or "glorot_uniform".
        seed: of the draw.
    """

    def __init__(self, kind: str = "he_normal", seed: int | None = None) -> None:
        self.kind, self.seed = kind, seed

    def __call__(self, shape: Any, dtype: Any = None, **more: Any) -> Any:
        _, inputs, units = shape
        per_inputs, per_both = _VARIANCES[self.kind]
        variance = per_inputs / inputs if per_inputs else per_both / (inputs + units)
        if self.kind.endswith("normal"):
            return K.initializers.RandomNormal(0.0, float(np.sqrt(variance)), seed=self.seed)(shape, dtype)
        limit = float(np.sqrt(3 * variance))
        return K.initializers.RandomUniform(-limit, limit, seed=self.seed)(shape, dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"kind": self.kind, "seed": self.seed}


class Asymmetric(OfOneNet):
    """Randomised asymmetric initialisation (Lu et al. 2019): one incoming weight of each unit is drawn from Beta(2, 1).

    In the paper it may also be the bias of the unit; here that is zero, and it is always a weight.
    """

    def __call__(self, shape: Any, dtype: Any = None, **more: Any) -> Any:
        rng = np.random.default_rng(self.seed)
        nets, inputs, units = shape
        kernel = rng.normal(0, 0.6007 * np.sqrt(2 / inputs), shape)
        chosen = rng.integers(0, inputs, (nets, 1, units))
        np.put_along_axis(kernel, chosen, rng.beta(2, 1, (nets, 1, units)), axis=1)
        return tf.constant(kernel.astype("float32"))


def stacked(nets: int, inputs: int, units: list[int], activation: Any, kernels: list[Any], *, last: Any = None) -> Any:
    """A model of `nets` nets.

    Args:
        nets: the number of nets.
        inputs: the number of inputs of each.
        units: the units of each layer.
        activation: of the hidden layers.
        kernels: the initialiser of each layer's kernel. Biases begin at zero.
        last: the activation of the last layer.
    """
    layers = []
    for index, (width, kernel) in enumerate(zip(units, kernels)):
        is_last = index == len(units) - 1
        layers.append(
            L.EinsumDense(
                "bni,nio->bno",
                (nets, width),
                activation=last if is_last else activation,
                bias_axes="no",
                kernel_initializer=kernel,
                name="out" if is_last else f"hidden_{index}",
            )
        )
    return K.Sequential([K.Input((nets, inputs)), *layers])
