"""Hypothesis strategies for random reports."""

from hypothesis import strategies as st

from relu_probe import LayerReport, Report

NEURONS = 4


@st.composite
def layers(draw):
    """A `LayerReport` of `NEURONS` neurons that obeys the laws of counts."""
    positions = draw(st.integers(0, 50))
    active = [draw(st.integers(0, positions)) for _ in range(NEURONS)]
    gradients = draw(st.booleans())
    return LayerReport(
        samples=draw(st.integers(0, positions)),
        positions=positions,
        active=active,
        with_gradient=[draw(st.integers(0, a)) for a in active] if gradients else None,
        nan=[draw(st.booleans()) for _ in active],
        activation_sum=[draw(st.floats(0, 1e3)) for _ in active] if draw(st.booleans()) else None,
        last_active=[draw(st.integers(-1, 99)) for _ in active] if draw(st.booleans()) else None,
        frozen=draw(st.booleans()),
    )


reports = st.builds(
    Report,
    st.dictionaries(st.sampled_from("abc"), layers(), max_size=3),
    st.none() | st.integers(-1, 9),
    st.sampled_from(["", "train", "data", "measure", "watch"]),
    st.sampled_from(["", "disk full", "no data"]),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["in a loop", "in a branch", "in a branch; in a loop"])),
    st.lists(st.sampled_from("abc")).map(tuple),
    st.none() | st.integers(0, 99),
)
