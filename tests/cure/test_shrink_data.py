"""`shrink` on data of all kinds, and what it says about data that hides the dead neurons."""

import numpy as np
import pytest
import tensorflow as tf
from keras_version import KERAS, LEGACY
from shrink_models import data, dead, model_of, removed, shrunk

from relu_probe import shrink

K, L = tf.keras, tf.keras.layers
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 2))


def image_net(*first):
    return model_of((6, 6, 2), *first, dead(L.Conv2D, 4, 3, name="a", kernel_initializer=K.initializers.Constant(1e-4)))


def nested():
    inner = K.Sequential([K.Input((6, 6, 2)), *image_net().layers[:1]])
    x = K.Input((6, 6, 2))
    return K.Model(x, L.Dense(2)(L.Flatten()(inner(x))))


NETS = {"convolution": image_net, "rescaled": lambda: image_net(L.Rescaling(1 / 255)), "nested": nested}


@pytest.mark.parametrize("kind", ["uint8", "int64", "float64"])
@pytest.mark.parametrize("name", NETS)
def test_pixels_that_keras_casts(name, kind):
    assert removed(shrunk(NETS[name](), PIXELS.astype(kind))) == {"a": [1]}


def test_a_dataset_of_pixels():
    batches = tf.data.Dataset.from_tensor_slices(PIXELS.astype("uint8")).batch(16)
    assert removed(shrink(image_net(), batches)) == {"a": [1]}


def fixed(shape, *layers):
    x = K.Input(batch_size=8, shape=shape)
    h = x
    for layer in layers:
        h = layer(h)
    return K.Model(x, L.Dense(1)(h))


def test_a_model_for_one_batch_size_and_the_states_that_it_keeps():
    stateful = L.LSTM(3, stateful=True)
    model = fixed((6,), dead(L.Dense, 4, name="a"), L.Dense(4), L.Reshape((2, 2)), stateful)
    model.predict(data(6), batch_size=8, verbose=0)
    states = [np.asarray(state) for state in stateful.states]
    assert np.any(states)
    found = shrink(model, data(6), batch_size=8)
    assert removed(found) == {"a": [1]}
    kept = next(layer for layer in found.model.layers if layer.name == stateful.name).states
    for before, after, new in zip(states, stateful.states, kept):
        assert np.array_equal(before, after)
        assert np.array_equal(before, new)


def test_neurons_that_a_nan_hides_are_named():
    x = data(5)
    x[3, 2] = np.nan
    found = shrink(model_of((5,), dead(L.Dense, 4, name="a")), x)
    assert found.units_removed == 0
    assert str(found).splitlines()[-1] == (
        "a: 4 not judged: a NaN reached them, and diagnose says where it comes from."
    )


def test_layers_is_checked_before_the_data_is_read():
    def never():
        raise AssertionError("the data was read")
        yield data(5)

    batches = tf.data.Dataset.from_generator(never, output_signature=tf.TensorSpec((None, 5)))
    with pytest.raises(ValueError, match=r"layers='z' matches no layer of the model; expected names, globs or layer"):
        shrink(model_of((5,), dead(L.Dense, 4, name="a")), batches, layers="z")


def words(layer, *values):
    """A model that looks words up, after the layer was adapted to them."""
    layer.adapt(np.array(values))
    embedded = [L.Embedding(9, 3), L.GlobalAveragePooling1D()] if layer.get_config()["output_mode"] == "int" else []
    return K.Sequential([K.Input((1,), dtype="string"), layer, *embedded, dead(L.Dense, 4, name="a"), L.Dense(1)])


WORDS = {
    "StringLookup": lambda: words(L.StringLookup(num_oov_indices=2), "a", "b", "c"),
    "tf_idf": lambda: words(L.StringLookup(output_mode="tf_idf"), ["a"], ["b"], ["a"]),
    "TextVectorization": lambda: words(L.TextVectorization(output_mode="tf_idf"), "a b", "b c", "d"),
    "sequences": lambda: words(L.TextVectorization(output_sequence_length=3), "a b", "b c", "d"),
}


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_words_to_which_a_layer_was_adapted(name, as_tensor):
    model, x = WORDS[name](), tf.constant([["a"], ["b"], ["c"], ["x"]])
    found = shrink(model, x if as_tensor else tf.data.Dataset.from_tensor_slices(x).batch(2))
    assert removed(found) == {"a": [1]}
    assert np.allclose(model(x), found.model(x), atol=1e-5)
    assert np.ptp(np.asarray(model(x))) > 0


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")  # of tf_keras itself
@pytest.mark.skipif(not LEGACY and KERAS < (3, 4), reason="Keras 3.3 cannot load a Discretization that was adapted")
@pytest.mark.parametrize("make", [L.IntegerLookup, lambda: L.Discretization(num_bins=4)])
def test_numbers_to_which_a_layer_was_adapted(make):
    layer, x = make(), np.array([[1], [5], [9], [20]], "int64")
    layer.adapt(x[:3])
    dtype = "int64" if isinstance(layer, L.IntegerLookup) else "float32"
    front = [K.Input((1,), dtype=dtype), layer, L.Embedding(9, 3), L.Flatten()]
    model = K.Sequential([*front, dead(L.Dense, 4, name="a"), L.Dense(1)])
    assert removed(shrink(model, x.astype(dtype))) == {"a": [1]}


@pytest.mark.skipif(LEGACY, reason="tf_keras has no LoRA")
def test_a_layer_with_other_weights_than_its_kernel_keeps_its_units():
    model = model_of((5,), dead(L.Dense, 4, name="a"), dead(L.Dense, 3, name="b"))
    model.get_layer("a").enable_lora(2)
    found = shrink(model, data(5))
    assert removed(found) == {"b": [1]}
    assert list(found.left["a"]) == ["a adds other weights to its kernel (LoRA)"]


@pytest.mark.skipif(KERAS < (3, 4), reason="Keras 3.3 runs a quantized layer where nothing shows it")
@pytest.mark.parametrize("mode", ["int8", "float8"])
@pytest.mark.filterwarnings("ignore:Layer .* does not have a")
def test_a_quantized_layer_keeps_its_units(mode):
    model = model_of((5,), dead(L.Dense, 4, name="a"))
    model.quantize(mode)
    found = shrink(model, data(5))
    assert list(found.left["a"]) == ["the weights of a are quantized"]


def test_a_convolution_in_groups_keeps_its_units():
    layers = [dead(L.Conv1D, 4, 1, groups=2, name="a"), L.Conv1D(2, 1)]
    found = shrink(model_of((5, 4), *layers), data(5, 4))
    assert list(found.left["a"]) == ["a is a convolution in groups, which have equally many units"]


def test_frozen_layers_and_models_stay_frozen():
    inner = K.Sequential([K.Input((5,)), dead(L.Dense, 4, name="a"), L.BatchNormalization(), L.Dense(3)], name="base")
    inner.trainable = False
    inner.layers[-1].trainable = True
    x = K.Input((5,))
    model = K.Model(x, L.Dense(1)(inner(x, training=False)), name="mine")
    model.compile("adam", "mse")
    model.fit(data(5), data(1), verbose=0)
    found = shrink(model, data(5))
    new = found.model.get_layer("base")
    assert (removed(found), found.model.name, found.optimizer_reset) == ({"a": [1]}, "mine", "")
    assert [layer.trainable for layer in (new, *new.layers)] == [layer.trainable for layer in (inner, *inner.layers)]
    assert len(found.model.trainable_weights) == len(model.trainable_weights)


@pytest.mark.skipif(not LEGACY, reason="Keras 3 forbids it")
def test_layers_that_share_a_weight_are_refused_by_name():
    model = model_of((4,), dead(L.Dense, 4, name="a"), dead(L.Dense, 4, name="b"))
    model.get_layer("b").kernel = model.get_layer("a").kernel
    with pytest.raises(
        ValueError, match="layers a, b share a weight, and made again from their configurations they do"
    ):
        shrink(model, data(4))
