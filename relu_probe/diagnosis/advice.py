"""The kinds of advice: what to do, and where that is known from. What triggers each stands in triggers.py. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from relu_probe.diagnosis.layer_facts import OptimizerFacts
from relu_probe.report.layer_report import Mask
from relu_probe.utils.foreign_text import shown, shown_names
from relu_probe.utils.wording import number


@dataclass(frozen=True, eq=False, repr=False)
class Advice:
    """What to do about sick neurons, and what measurement it follows from.

    Args:
        kind: one of `KINDS`.
        layers: the names of the layers.
        neurons: layer name -> mask `(neurons,)` of the neurons that it is about.
        text: what to do.
        source: where that is known from.
        findings: layer name -> what was measured there, in words.
    """

    kind: str
    layers: tuple[str, ...]
    neurons: Mapping[str, Mask]
    text: str
    source: str
    findings: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        about = number(sum(int(np.count_nonzero(mask)) for mask in self.neurons.values()), "neuron")
        return (
            f"<Advice {self.kind!r} on {shown_names(self.layers, 3) or 'no layer'}, {about}: {shown(self.text, 500)}>"
        )


SOURCES = {
    "dead_output": "by definition: a ReLU is never negative, and passes no gradient where it is zero",
    "zero_kernel": "Goodfellow et al. 2016, Deep Learning, section 8.4",
    "zero_input": "by definition: z = b wherever the input is zero",
    "regularizer": "by definition: a penalty on activity or weights pulls both towards zero",
    "bias_start": "Goodfellow et al. 2016, Deep Learning, section 6.3.1",
    "batchnorm_lag": "Ioffe and Szegedy 2015, arXiv:1502.03167",
    "learning_rate": "Goodfellow et al. 2016, Deep Learning, section 11.4.1",
    "trained_down": "Goodfellow et al. 2016, Deep Learning, section 11.4.1",
    "inputs": "LeCun et al. 1998, Efficient BackProp, section 4.3",
    "targets": "van Hasselt et al. 2016, arXiv:1602.07714",
    "narrow": "Lu et al. 2019, arXiv:1903.06733",
    "threshold": "by definition: the threshold is subtracted from the bias",
    "cut": "by definition: dL/dz = 0 where a ReLU is off",
    "no_path": "by definition: what the loss does not depend on has no gradient",
    "loss": "measured: dL/dy = 0",
    "saturated": "by definition: relu'(z) = 0 at the ceiling",
    "outgoing": "Goodfellow et al. 2016, Deep Learning, section 8.4",
    "second_cause": "by definition: z = b wherever the input is zero",
    "nan_data": "by definition: what is computed from a NaN is a NaN",
    "nan_weights": "Pascanu et al. 2013, arXiv:1211.5063",
    "nan_arithmetic": "by definition: 0 / 0 and inf - inf are NaN",
    "general": "no measurement: what is usually tried first",
}
KINDS = tuple(SOURCES)

TEXTS = {
    "dead_output": "Give the output layer no ReLU: a linear output{softplus}.",
    "zero_kernel": "Initialise the kernel at random, as Keras does by default, not at zero.",
    "zero_input": "Check the data, or the layer before this one: nothing but zeros arrives.",
    "regularizer": "Lower the regulariser's factor, or remove it.",
    "bias_start": "Initialise {what} at zero, or at a small positive value such as 0.1.",
    "batchnorm_lag": "Train longer, or lower the momentum of the BatchNormalization, so that its moving averages follow.",
    "inputs": "{remedy}",
    "targets": "Standardise the targets first (mean 0, deviation 1 over the training data), and undo that in the predictions: the rate "
    "may be right then.",
    "narrow": "Widen the layers and use fewer of them, or initialise them differently (randomized asymmetric initialization).",
    "threshold": "Lower the threshold of the ReLU.",
    "cut": "Mend the cause, then start again from new weights{revive}: further training cannot wake this layer.",
    "no_path": "Remove the stop_gradient, or give the output that the layer leads to a loss.",
    "loss": "Look at the loss, its weights and the labels: the network passes on the gradient that it gets.",
    "saturated": "Use smaller weights before it, such as those of Keras's default initialisers, or an unbounded ReLU.",
    "outgoing": "Initialise the weights of the next layer at random, not at zero.",
    "second_cause": "Mend the layers before it first, and then its bias, which is below zero: either alone keeps it dead.",
    "general": "Nothing that was measured points to one cause. Usually tried first: a lower learning rate, standardised inputs, "
    "the default initialisers{probe}.",
}
DATES = ", a ReluProbe in the training (probe=...), which dates the deaths"


def rate_text(optimizer: OptimizerFacts) -> str:
    """What to do about a learning rate that is too high. Clipping helps only where a step grows with the gradient."""
    rate, of_optimizer = optimizer.learning_rate, f" of {optimizer.name}" if optimizer.name else ""
    clip = "" if optimizer.scale_invariant else ", or clip the gradients (clipnorm=1.0 in the optimizer)"
    if optimizer.schedule:
        whose = f"all rates of the {optimizer.schedule}{of_optimizer}"
    elif rate == 0:
        whose = f"the learning rate{of_optimizer}, which is 0 now, from what it was in the training"
    else:
        whose = f"the learning rate{of_optimizer}{'' if rate is None else f' (it is {rate:.3g})'}"
    return f"Lower {whose}, tenfold at first{clip}."


def offset_words(offset: float) -> str:
    """How far inputs are from being centred, in words."""
    if np.isinf(offset):
        return "they are constant"
    return f"the norm of their mean is {offset:.3g} times that of their deviation"
