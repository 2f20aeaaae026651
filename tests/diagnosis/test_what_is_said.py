"""What is said is what was measured: every number in the texts of random models is parsed back and equals what was measured.

The texts are those of the report, of the history, and of the diagnosis: counts, causes, margins, dates, limits and N, and the
findings of the advice. A number that nothing explains fails too.

`pytest tests/diagnosis/test_what_is_said.py --hypothesis-profile=long` runs 200 models, which differ from run to run.
"""

import fuzz
import numpy as np
import pytest
import tensorflow as tf
from diagnosis_text import wrong_numbers
from fuzz_checks import LONG, run
from hypothesis import settings
from models import sequential
from report_text import assert_history_is_said, assert_said

from relu_probe import ReluProbe, diagnose, measure

K, L = tf.keras, tf.keras.layers
X = np.linspace(1, 3, 24).reshape(8, 3).astype("f")
MODELS = 200 if settings.default.max_examples == LONG.max_examples else 8


def said(case):
    """A third of the models is diagnosed as it is made, a third within bounds, a third after a training with a probe."""
    (x, y), kind = case.data(), (case.seed + case.samples + case.batch) % 3
    model, options, reports = case.model(0.01), {}, []
    if kind == 1 and np.isfinite(x).all():
        options["bounds"] = (-2, 2)
    if kind == 2:
        at_start = case.samples % 2 == 0
        options["probe"] = probe = ReluProbe(data=(x, y) if at_start else None, at_start=at_start)
        model.fit(x, y, batch_size=case.batch, epochs=2, verbose=0, callbacks=[probe])
        reports = probe.reports
    report = measure(model, (x, y), batch_size=case.batch)
    found = diagnose(model, (x, y), batch_size=case.batch, **options)
    assert_said(report)
    assert_history_is_said([report])
    assert_history_is_said(reports) if reports else None
    assert list(found.report) == list(report)
    assert wrong_numbers(found, str(found), x if "bounds" in options else None) == []


def test_of_random_models(record_property):
    run(said, MODELS, record_property)


def test_of_layers_that_follow_others_to_death():
    said(fuzz.Case((3,), [("plain", "relu", 1), ("plain", "relu", 1)], 1, 1, 1, [], [], 0))


@pytest.fixture(scope="module")
def sick():
    """The diagnosis of two layers with neurons of several causes, two of which died in epoch 1."""
    layers = L.Dense(6, "relu", name="dense_1"), L.Dense(4, "relu", name="dense_2"), L.Dense(1)
    model, probe = sequential(3, *layers, optimizer=K.optimizers.SGD(1e-6)), ReluProbe()
    first = np.tile([1, 1, -1, 0, 1, 1], (3, 1)), np.array([-50, -60, 0, 0, 1, 0])
    rest = np.ones((6, 4)), np.array([-70, -80, 0, 0]), np.array([[1], [1], [1], [0]]), np.zeros(1)

    def kill(epoch, logs=None):
        model.set_weights([first[0], first[1] * (epoch == 1), *rest])

    kill = K.callbacks.LambdaCallback(on_epoch_begin=kill)
    model.fit(X, X[:, :1], 4, epochs=2, verbose=0, callbacks=[probe, kill])
    model.set_weights([*first, *rest])
    return diagnose(model, (X, X[:, :1]), bounds=(0, 2), probe=probe)


MISTAKES = {  # what is said, a mistake in its place, and the kind of number that is wrong then
    "sick layers": ("2 of 2 ReLU layers", "1 of 2 ReLU layers", "headline"),
    "N": ("on N = 8 samples", "on N = 4 samples", "headline"),
    "the root": ("The root is\ndense_1", "The root is\ndense_2", "headline"),
    "the layers of an advice": (" 1. dense_1:", " 1. dense_2:", "names"),
    "the learning rate": ("(it is 1e-06)", "(it is 1e-05)", "rate"),
    "the rest of the advice": ("3 more in .advice", "2 more in .advice", "more advice"),
    "the date": ("dead in all of epoch 1", "dead in all of epoch 0", "date"),
    "the step": ("after training step 1,", "after training step 2,", "date"),
    "deaths": ("2 died after", "3 died after", "date"),
    "dead neurons": ("dense_1: 4 of 6", "dense_1: 3 of 6", "counts"),
    "all neurons": ("dense_2: 2 of 4", "dense_2: 2 of 6", "counts"),
    "blocked neurons": ("dead, 1 blocked", "dead, 0 blocked", "counts"),
    "neurons of a cause": ("weights (1 neuron): w.x", "weights (2 neurons): w.x", "cause"),
    "a cause": ("weights (1 neuron): w.x", "input (1 neuron): w.x", "causes"),
    "another layer's margin": ("lies between -51.3 and -41.3", "lies between -61.5 and -51.5", "margin"),
    "another neuron's margin": ("between -61.5 and -51.5", "between -61.5 and -41.3", "margin"),
    "certified neurons": ("3 of 6 neurons are certified", "2 of 6 neurons are certified", "certified"),
    "neurons of a finding": ("weights of 1 neuron are zero", "weights of 2 neurons are zero", "finding zero_kernel"),
    "a number of a finding": ("bias gives 0;", "bias gives 1;", "finding trained_down"),
    "the place of a finding": ("-> 3.", "-> 2.", "findings"),
    "another layer's inputs": ("mean is 3.64 times", "mean is 3.35 times", "inputs"),
    "the confidence": ("With 95 %", "With 99 %", "confidence"),
    "a limit for another N": ("on less than 31.23 %", "on less than 28.31 %", "limit"),  # 1 - 0.05 ** (1 / 9)
    "the limit of one neuron for all": ("on less than 45.03 %", "on less than 31.23 %", "limit"),
    "the range of the data": ("from 1 to 3, outside", "from 0 to 3, outside", "bounds"),
    "a number from nowhere": ("[Clopper and", "In 17 of them. [Clopper and", "unread"),
}


@pytest.mark.once
def test_the_mistakes_are_not_said(sick):
    assert wrong_numbers(sick, str(sick), X) == []


@pytest.mark.once
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_check_rejects(mistake, sick):
    right, wrong, kind = MISTAKES[mistake]
    text = str(sick)
    assert right in text
    assert kind in {each.partition(":")[0] for each in wrong_numbers(sick, text.replace(right, wrong), X)}
