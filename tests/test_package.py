"""`import relu_probe` is light: it does not import TensorFlow."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.once
PROOF = "import sys; assert 'tensorflow' not in sys.modules, 'TensorFlow was imported'"


def run(code):
    return subprocess.run([sys.executable, "-c", f"{code}; {PROOF}"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "code", ["import relu_probe", "from relu_probe import Report, LayerReport; str(Report.empty())"]
)
def test_the_front_door_imports_no_tensorflow(code):
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_that_test_can_fail():
    result = run("from relu_probe import ReluProbe")
    assert result.returncode == 1
    assert "TensorFlow was imported" in result.stderr


def test_unknown_names_are_named():
    import relu_probe

    with pytest.raises(AttributeError, match="module 'relu_probe' has no attribute 'Probe'; it has "):
        relu_probe.Probe  # noqa: B018
    assert set(relu_probe.__all__) <= set(dir(relu_probe))
    assert all(getattr(relu_probe, name) is not None for name in relu_probe.__all__)
