"""The charts' layout, the images and the table in the event files, and the size of it all."""

import os
import re
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from models import sequential
from pictures import life_picture
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.plugins.custom_scalar import layout_pb2

from relu_probe import LayerReport, ReluProbe, Report
from relu_probe.report.markup import markdown_table
from relu_probe.tensorboard.life_images import MOST
from relu_probe.tensorboard.summaries import OVERVIEW_TAG, Summaries

pytestmark = pytest.mark.any_keras

L = tf.keras.layers


def values(log_dir, run="relu_probe"):
    """Returns (step, value) of each summary in the run's only event file."""
    (file,) = (log_dir / run).iterdir()
    return [(event.step, value) for event in EventFileLoader(str(file)).Load() for value in event.summary.value]


def steps(log_dir, prefix):
    found = {}
    for step, value in values(log_dir):
        if value.tag.startswith(prefix):
            found.setdefault(value.tag, []).append(step)
    return found


def fit(log_dir, epochs=1, **options):
    hidden = [L.Dense(6, "relu", name="one"), L.Dense(5, "relu", name="two")]
    model = sequential(8, *hidden, L.Dense(3), optimizer="sgd")
    rng, probe = np.random.default_rng(0), ReluProbe(log_dir, **options)
    model.fit(rng.random((20, 8)), rng.random((20, 3)), epochs=epochs, verbose=0, callbacks=[probe])
    return probe


def test_the_layout_with_one_chart_for_all_layers_is_written_once(tmp_path):
    fit(tmp_path, epochs=3)
    configs = [value for _, value in values(tmp_path) if value.tag == "custom_scalars__config__"]
    assert len(configs) == 1
    (category,) = layout_pb2.Layout.FromString(configs[0].tensor.string_val[0]).category
    titles = ["dead_fraction of every layer", "blocked_fraction of every layer"]
    assert [chart.title for chart in category.chart] == titles
    tags = {value.tag for _, value in values(tmp_path)}
    for chart, scalar in zip(category.chart, ("dead_fraction", "blocked_fraction")):
        (pattern,) = chart.multiline.tag
        assert {tag for tag in tags if re.match(pattern, tag)} == {f"{scalar}/one", f"{scalar}/two"}


def test_without_gradients_there_is_no_chart_of_them(tmp_path):
    summaries = Summaries(str(tmp_path), "relu_probe")
    summaries.write(Report({"a": LayerReport(1, 1, [1])}, 0), 0)
    summaries.close()
    (config,) = (value for _, value in values(tmp_path) if value.tag == "custom_scalars__config__")
    assert b"zero_gradient" not in config.tensor.string_val[0]


@pytest.mark.parametrize(("epochs", "expected"), [(1, [0]), (8, [0, 1, 3, 7]), (11, [0, 1, 3, 7, 10])])
def test_images_are_written_when_the_reports_have_doubled_and_at_the_end(tmp_path, epochs, expected):
    probe = fit(tmp_path, epochs)
    assert steps(tmp_path, "life/") == {"life/one": expected, "life/two": expected}
    assert steps(tmp_path, OVERVIEW_TAG) == {OVERVIEW_TAG: expected}
    newest = [value for _, value in values(tmp_path) if value.tag == "life/two"][-1]
    width, height, png = newest.tensor.string_val
    image = tf.io.decode_png(png).numpy()
    np.testing.assert_array_equal(image, life_picture("two", probe.reports))
    assert (int(width), int(height)) == (image.shape[1], image.shape[0])


@pytest.mark.once
@pytest.mark.parametrize(
    ("epochs", "layers", "overviews"), [(1, [0], [0]), (3, [2], [0, 1, 2]), (5, [3, 4], [0, 1, 3, 4])]
)
def test_images_of_very_many_layers_begin_with_the_fourth_report_or_at_the_end(tmp_path, epochs, layers, overviews):
    write_reports(tmp_path, [layers_with_dead(range(101))] * epochs)
    found = steps(tmp_path, "life/")
    assert len(found) == MOST
    assert set(map(tuple, found.values())) == {tuple(layers)}
    assert steps(tmp_path, OVERVIEW_TAG) == {OVERVIEW_TAG: overviews}


@pytest.mark.once
def test_of_very_many_layers_those_with_the_most_dead_neurons_have_images(tmp_path):
    dead = [set(range(120)) - {3, 70}] * 4 + [set(range(110, 120)) | {70}]
    write_reports(tmp_path, [layers_with_dead(each) for each in dead])
    found = steps(tmp_path, "life/")
    first = [i for i in range(120) if i not in (3, 70)][:MOST]  # of equal ones the earlier layers
    later = {3, 70, *range(110, 120)} - set(first)  # 3 is one of the first 100 of the last report
    assert {int(tag.rsplit("_", 1)[1]) for tag in found} == {*first, *later}
    assert all(drawn == ([3, 4] if int(tag.rsplit("_", 1)[1]) in first else [4]) for tag, drawn in found.items())
    texts = [value.tensor.string_val[0].decode() for _, value in values(tmp_path) if value.tag == "report"]
    assert len(texts) == 5
    assert all("life/, of the layers with the largest shares of dead neurons: columns" in text for text in texts)


@pytest.mark.once
def test_layers_that_have_images_keep_them_when_more_come(tmp_path):
    few = layers_with_dead(range(90))
    more = layers_with_dead(range(120, 230))
    write_reports(tmp_path, [few] * 4 + [more] * 4)
    assert all(drawn[-1] == 7 for drawn in steps(tmp_path, "life/").values())


def layers_with_dead(dead):
    """Returns layers of two neurons, one of which is dead in those of these numbers."""
    size = max(dead) + 1
    return {f"layer_{i}": LayerReport(samples=2, positions=2, active=[int(i not in dead), 1]) for i in range(size)}


def write_reports(directory, layers):
    summaries = Summaries(str(directory), "relu_probe")
    for epoch, each in enumerate(layers):
        summaries.write(Report(each, epoch=epoch), epoch)
    summaries.finish()
    summaries.close()


def test_a_table_for_each_epoch(tmp_path):
    probe = fit(tmp_path, epochs=3)
    tables = [value.tensor.string_val[0].decode() for _, value in values(tmp_path) if value.tag == "report"]
    assert len(tables) == 3
    for table, report in zip(tables, probe.reports):
        clauses, rest = table.split("\n\n", 1)
        assert clauses == "**none of 11 ReLU neurons dead**" or re.match(
            r"\*\*(one|two)&#58; \d of \d dead, all never seen active", clauses
        )
        assert rest.startswith(markdown_table(report.cells()))
        assert "magenta is dead" in table


def test_images_and_tables_can_be_switched_off(tmp_path):
    fit(tmp_path / "none", images=False, text=False)
    fit(tmp_path / "all")
    without, complete = ({v.tag for _, v in values(tmp_path / name)} for name in ("none", "all"))
    assert complete - without == {OVERVIEW_TAG, "life/one", "life/two", "report"}
    fit(tmp_path / "text", images=False)
    (table,) = (v.tensor.string_val[0] for _, v in values(tmp_path / "text") if v.tag == "report")
    assert b"magenta" not in table


def test_a_layer_that_comes_late_has_images_from_then_on(tmp_path):
    layer = LayerReport(samples=2, positions=2, active=[0, 1])
    summaries = Summaries(str(tmp_path), "relu_probe")
    for epoch, names in enumerate(["a", "a", "ab", "ab"]):
        summaries.write(Report(dict.fromkeys(names, layer), epoch), epoch)
    summaries.close()
    assert steps(tmp_path, "life/") == {"life/a": [0, 1, 3], "life/b": [3]}
    assert steps(tmp_path, OVERVIEW_TAG) == {OVERVIEW_TAG: [0, 1, 3]}


NAMES = ["<img src=x>", "a|b", "../../x", "![i](http://x/y.png)", "n" * 300]


def test_names_are_unchanged_in_tags_and_escaped_in_descriptions(tmp_path):
    layer = LayerReport(samples=2, positions=2, active=[0, 1], with_gradient=[0, 1])
    summaries = Summaries(str(tmp_path / "logs"), "relu_probe")
    summaries.write(Report(dict.fromkeys(NAMES, layer), 0), 0)
    summaries.close()
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]  # "../../x" was not used as a path
    written = [value for _, value in values(tmp_path / "logs")]
    groups = ("dead_fraction", "zero_gradient_fraction", "activation_rate", "gradient_rate", "life")
    assert {f"{group}/{name}" for group in groups for name in NAMES} < {value.tag for value in written}
    for value in written:
        assert "<img" not in markdown_to_safe_html(value.metadata.summary_description)
    assert "<img" in markdown_to_safe_html(f"Layer {NAMES[3]}")  # the planted mistake: the unescaped name


LAYERS, NEURONS, LIMIT = 50, 1_000, 200_000


def wide(epoch, seed=0):
    rng = np.random.default_rng([seed, epoch])
    counts = {f"block_{i}/dense": np.sort(rng.integers(0, 60_000, (2, NEURONS)), axis=0) for i in range(LAYERS)}
    layers = {
        name: LayerReport(60_000, 60_000, active=active, with_gradient=with_gradient, died=1, revived=1)
        for name, (with_gradient, active) in counts.items()
    }
    return Report(layers, epoch, "train")


def growth(log_dir, **options):
    """Returns the bytes that each of four epochs adds to the event file."""
    summaries, sizes = Summaries(str(log_dir), "relu_probe", **options), [0]
    for epoch in range(4):
        summaries.write(wide(epoch), epoch)
        (file,) = (log_dir / "relu_probe").iterdir()
        sizes.append(os.path.getsize(file))
    summaries.close()
    return np.diff(sizes)


def test_an_epoch_of_50_layers_of_1000_neurons_is_small(tmp_path):
    assert growth(tmp_path / "probe", images=False).max() < LIMIT
    tags = Counter(value.tag.split("/")[0] for _, value in values(tmp_path / "probe"))
    assert tags["activation_rate"] == tags["gradient_rate"] == tags["died"] == tags["revived"] == 4 * LAYERS
    assert tags["dead_fraction"] == tags["zero_gradient_fraction"] == 4 * (LAYERS + 1)

    writer = tf.summary.create_file_writer(str(tmp_path / "values"))  # the planted mistake: the values of all neurons
    with writer.as_default(step=0):
        for name, layer in wide(0).layers.items():
            tf.summary.write(name, layer.activation_rate)
    writer.close()
    (file,) = (tmp_path / "values").iterdir()
    assert os.path.getsize(file) > LIMIT
