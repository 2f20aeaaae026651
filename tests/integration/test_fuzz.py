"""Random small models on random data: `measure` and a fit count what the oracle counts, and change no training.

`pytest tests/integration/test_fuzz.py --hypothesis-profile=long` runs 300 cases, which differ from run to run.
"""

import pytest
from fuzz_checks import LONG, exact, measured, run, trained, unharmed, watched
from hypothesis import settings

CASES = LONG.max_examples if settings.default.max_examples == LONG.max_examples else 16


@pytest.mark.parametrize(("check", "share"), [(measured, 1), (trained, 2), (watched, 2), (unharmed, 4), (exact, 4)])
def test_random_models(check, share, record_property):
    run(check, max(1, CASES // share), record_property)
