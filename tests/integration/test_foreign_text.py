"""Layer names from a model file that would command a terminal or a CI, in everything that the package shows."""

import unicodedata
import warnings

import numpy as np
import pytest
import tensorflow as tf
from event_files import points
from keras_version import LEGACY
from models import sequential

from relu_probe import LayerReport, ReluProbe, Report, diagnose, history, measure
from relu_probe.plots import plot_history, plot_report
from relu_probe.report.limits import Limits
from relu_probe.utils.foreign_text import shown, shown_names

K, L = tf.keras, tf.keras.layers
COMMANDS = "\x1b]0;title\x07\x1b[2J\x9b31m\n::error file=a::no\r\u202egnp.exe\u2028##[error]##vso[task]"
NAME = COMMANDS + "x" * 20_000
X, Y = np.ones((8, 3), "f"), np.ones((8, 1), "f")


def assert_harmless(text):
    """Asserts that no line could command a terminal or a CI, and that the text is of a readable length."""
    wrong = {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert not wrong, wrong
    assert not any(mark in text for mark in ("::", "##")), text
    assert len(text) < 5_000


IN_A_MODEL = pytest.mark.skipif(LEGACY, reason="tf_keras makes no layer of this name")


@pytest.fixture(scope="module")
def evil():
    """A model whose layer has such a name: a dead, a blocked and an active neuron."""
    bias = K.initializers.Constant([-100.0, 1.0, 1.0])
    hidden = L.Dense(3, "relu", kernel_initializer="ones", bias_initializer=bias, name=NAME)
    output = L.Dense(1, kernel_initializer=K.initializers.Constant([[0.0], [0.0], [1.0]]))
    return sequential(3, hidden, output, run_eagerly=True)  # a graph refuses such a name


@pytest.fixture(scope="module")
def report():
    layer = LayerReport(8, 8, active=[0, 8, 8], with_gradient=[0, 0, 8], nan=[False, False, True], died=1, revived=1)
    return Report({NAME: layer}, unseen={NAME: NAME}, never_called=(NAME,), incomplete=NAME)


def test_the_names_themselves_are_kept(report):
    assert list(report) == [NAME]
    assert Report.from_dict(report.to_dict()) == report


@pytest.mark.parametrize(
    "show",
    [str, lambda report: report._repr_html_(), lambda report: str(history([report, report]))],
    ids=["table", "html", "history"],
)
def test_reports(report, show):
    assert_harmless(show(report))


def test_errors_of_reports(report):
    without_gradients = Report({NAME: LayerReport(8, 8, active=[8])})
    for wrong in (
        report.assert_alive,
        lambda: report.assert_alive(layers="nothing"),
        lambda: report["nothing"],
        lambda: report.assert_alive(max_dead=1, require_all=True),
        lambda: Report({NAME: report[NAME]}).select(["nothing"]),
        lambda: without_gradients.assert_alive(max_dead=None, max_zero_gradient=0.5),
        lambda: Report({NAME: LayerReport(0, 0, active=[0])}).assert_alive(),
        lambda: Report({}, unseen={NAME: NAME}).assert_alive(),
    ):
        with pytest.raises((AssertionError, ValueError, KeyError)) as error:
            wrong()
        assert_harmless(str(error.value))
    for exceeded in Limits(0.0, 0.0).exceeded_by(report.layers):
        assert_harmless(str(exceeded))


@IN_A_MODEL
@pytest.mark.parametrize("wrong", [{"layers": "nothing"}, {"data": np.ones((8, 7), "f")}], ids=str)
def test_errors_of_measure(evil, wrong):
    with pytest.raises(ValueError, match=r"names, globs or layer objects|the model cannot be run") as error:
        measure(evil, **{"data": X} | wrong)
    assert_harmless(str(error.value))


@IN_A_MODEL
def test_messages_of_keras():
    """A graph refuses the name, and Keras's message says it all."""
    model = sequential(3, L.Dense(2, "relu", name=NAME))
    with pytest.raises(ValueError, match="the model cannot be run on the data") as error:
        measure(model, X)
    assert_harmless(str(error.value))


def test_the_name_of_a_model():
    model = K.Sequential([K.Input((3,)), L.Dense(2, name="linear")])
    model._name = NAME
    with pytest.raises(ValueError, match="no ReLU found") as error:
        measure(model, X)
    assert_harmless(str(error.value))


@IN_A_MODEL
def test_a_diagnosis(evil):
    assert_harmless(str(diagnose(evil, (X, Y), bounds=(0, 1))))


@IN_A_MODEL
def test_a_fit_and_its_event_files(evil, tmp_path, capsys):
    class Breaks(ReluProbe):
        def _print_nan(self):
            raise OSError(NAME)

    probe = Breaks(tmp_path, data=(X, Y), max_dead=0.1, images=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evil.fit(X, Y, verbose=0, callbacks=[probe])
    messages = [str(warning.message) for warning in caught if "telling stopped" in str(warning.message)]
    assert len(messages) == 1
    assert_harmless(messages[0])
    out = capsys.readouterr().out
    assert "training stopped" in out
    assert_harmless(out)
    ((_, text),) = points(tmp_path / "relu_probe")["report"]
    assert_harmless(text.item().decode())


def test_plots(report):
    drawn = Report({NAME: report[NAME]}, epoch=0)
    for figure in (plot_report(drawn), plot_history([drawn])):
        for text in figure.findobj(lambda artist: hasattr(artist, "get_text")):
            assert_harmless(text.get_text())


def test_what_is_shown():
    assert shown("Dichte_1/конв 2 😀") == "Dichte_1/конв 2 😀"
    assert shown("a\tb\x00\x7f\x85\ud800") == r"a\tb\x00\x7f\x85\ud800"
    assert len(shown("ab" * 10**6)) == 120
    assert len(shown("\x00" * 10**6, 60)) == 60
    assert shown_names([]) == ""
    assert shown_names(map(str, range(11))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (11 in all)"
