"""`shrink`: what is removed, and that the smaller model computes the same."""

import numpy as np
import pytest
import tensorflow as tf
from keras_version import KERAS, LEGACY
from shrink_models import data, dead, low, model_of, outputs, randomized, removed, shrunk

from relu_probe import measure, shrink

K, L = tf.keras, tf.keras.layers
FIRST = {"data_format": "channels_first"}


# --- layers -----------------------------------------------------------------------------------------------------------

STACKS = {
    "Dense": ((5,), lambda: [dead(L.Dense, 4, name="a")]),
    "Dense on sequences": ((3, 5), lambda: [dead(L.Dense, 4, name="a")]),
    "Dropout": ((5,), lambda: [dead(L.Dense, 4, name="a"), L.Dropout(0.5), L.GaussianNoise(0.1)]),
    "Conv1D": ((6, 2), lambda: [dead(L.Conv1D, 4, 3, padding="causal", name="a"), L.Conv1D(3, 2, padding="same")]),
    "Conv2D": ((6, 6, 2), lambda: [dead(L.Conv2D, 4, 3, strides=2, name="a"), L.Conv2D(3, 2, padding="same")]),
    "Conv3D": ((4, 4, 4, 1), lambda: [dead(L.Conv3D, 4, 2, name="a"), L.Conv3D(3, 2)]),
    "Conv2DTranspose": (
        (3, 3, 2),
        lambda: [dead(L.Conv2DTranspose, 4, 2, strides=2, name="a"), L.Conv2DTranspose(3, 3, padding="same")],
    ),
    "SeparableConv1D": ((8, 2), lambda: [dead(L.SeparableConv1D, 4, 3, name="a"), L.SeparableConv1D(3, 2)]),
    "SeparableConv2D": (
        (6, 6, 2),
        lambda: [dead(L.SeparableConv2D, 4, 3, name="a"), L.SeparableConv2D(3, 2, depth_multiplier=2)],
    ),
    "DepthwiseConv2D": (
        (6, 6, 2),
        lambda: [
            dead(L.Conv2D, 4, 3, name="a"),
            L.DepthwiseConv2D(2, padding="same", depth_multiplier=2),
            L.Conv2D(3, 1),
        ],
    ),
    "EinsumDense": (
        (3, 5),
        lambda: [
            L.EinsumDense("abc,cd->abd", (3, 4), "relu", bias_axes="d", bias_initializer=low(4), name="a"),
            L.EinsumDense("abc,cd->abd", (3, 3), bias_axes="d"),
        ],
    ),
    "Flatten": ((6, 6, 2), lambda: [dead(L.Conv2D, 4, 3, name="a"), L.Flatten(), L.Dense(3)]),
    "Flatten, channels first": (
        (2, 6, 6),
        lambda: [dead(L.Conv2D, 3, 3, name="a", **FIRST), L.Flatten(**FIRST), L.Dense(3)],
    ),
    "pooling": (
        (8, 8, 2),
        lambda: [
            *(dead(L.Conv2D, 4, 3, padding="same", name="a"), L.MaxPooling2D(), L.AveragePooling2D(2, padding="same")),
            *(L.UpSampling2D(), L.ZeroPadding2D(1), L.Cropping2D(1), L.GlobalAveragePooling2D()),
        ],
    ),
    "BatchNormalization before": (
        (6, 6, 2),
        lambda: [L.Conv2D(4, 3, use_bias=False, name="a"), L.BatchNormalization(beta_initializer=low(4)), L.ReLU()],
    ),
    "BatchNormalization behind": (
        (6, 6, 2),
        lambda: [dead(L.Conv2D, 4, 3, name="a"), L.BatchNormalization(), L.Conv2D(3, 2)],
    ),
    "BatchNormalization behind, then one without a bias": (
        (6, 6, 2),
        lambda: [
            *(dead(L.Conv2D, 4, 3, name="a"), L.BatchNormalization(), L.Conv2D(3, 2, use_bias=False)),
            L.BatchNormalization(),
        ],
    ),
    "BatchNormalization of each place": (
        (4, 2),
        lambda: [dead(L.Conv1D, 4, 1, name="a"), L.Flatten(), L.BatchNormalization()],
    ),
    "Permute": ((3, 5), lambda: [dead(L.Dense, 4, name="a"), L.Permute((2, 1))]),
}


@pytest.mark.parametrize("name", STACKS)
def test_a_dead_unit_is_removed(name):
    shape, layers = STACKS[name]
    model = randomized(model_of(shape, *layers()))
    found = shrunk(model, data(*shape))
    assert removed(found) == {"a": [1]}
    assert found.left == {}
    assert not any(layer.dead.any() for layer in measure(found.model, data(*shape)).layers.values())
    assert found.model.count_params() < model.count_params()


def test_the_weights_that_stay_are_those_of_the_model():
    model = model_of((5,), dead(L.Dense, 4, name="a"), optimizer="adam")
    (kernel, bias), (out, _) = (model.get_layer(name).get_weights() for name in ("a", "out"))
    new = shrunk(model, data(5)).model
    assert np.array_equal(new.get_layer("a").get_weights()[0], np.delete(kernel, 1, 1))
    assert np.array_equal(new.get_layer("a").get_weights()[1], np.delete(bias, 1))
    assert np.array_equal(new.get_layer("out").get_weights()[0], np.delete(out, 1, 0))


def test_a_live_unit_that_feeds_only_a_dead_depthwise_channel_goes_too():
    """As in an inverted residual block: expand, depthwise, project."""
    model = randomized(
        model_of(
            (6, 6, 2),
            *(
                L.Conv2D(4, 1, name="expand"),
                L.ReLU(6.0, name="expanded"),
                L.DepthwiseConv2D(3, padding="same", name="deep"),
            ),
            *(L.ReLU(name="act"), L.Conv2D(3, 1, name="project")),
        )
    )
    model.get_layer("deep").bias.assign([-50.0, 0.1, -50.0, 0.1])
    found = shrunk(model, data(6, 6, 2))
    assert (removed(found), found.left) == ({"expand": [0, 2]}, {})


def test_a_dead_channel_that_a_depthwise_convolution_turns_into_a_constant_is_folded():
    model = model_of(
        (6, 6, 2),
        *(
            dead(L.Conv2D, 4, 1, name="expand"),
            L.DepthwiseConv2D(3, padding="same", bias_initializer=K.initializers.Constant(2.0)),
        ),
        *(L.BatchNormalization(), L.ReLU(6.0)),
        *(L.Conv2D(3, 1, padding="same", use_bias=False), L.BatchNormalization()),  # it has nothing to pad
    )
    assert removed(shrunk(randomized(model), data(6, 6, 2))) == {"expand": [1]}


def test_a_constant_that_a_layer_of_two_calls_passes_on_goes_into_each_batch_normalization_behind_it():
    x = K.Input((5,))
    shared = L.Dense(3, use_bias=False)
    h = L.BatchNormalization()(dead(L.Dense, 4, name="a")(x))
    both = [L.BatchNormalization()(shared(h)), L.BatchNormalization()(shared(h))]
    model = randomized(K.Model(x, L.Dense(1)(L.Concatenate()(both))))
    assert removed(shrunk(model, data(5))) == {"a": [1]}


def test_concatenated_branches_and_one_tensor_twice():
    x = K.Input((5,))
    a, b = dead(L.Dense, 4, name="a")(x), dead(L.Dense, 3, name="b", neurons=(0, 2))(x)
    joined = L.BatchNormalization()(L.Concatenate()([b, a, x, b]))
    model = K.Model(x, L.Dense(2)(dead(L.Dense, 3, name="c")(joined)))
    found = shrunk(randomized(model), data(5))
    assert removed(found) == {"a": [1], "b": [0, 2], "c": [1]}
    assert found.model.get_layer("c").kernel.shape[0] == 3 + 2 * 1 + 5


def test_an_adapted_normalization_goes_on_as_adapted():
    normalization = L.Normalization()
    normalization.adapt(data(5) * 3 + 1)
    assert removed(shrunk(model_of((5,), normalization, dead(L.Dense, 4, name="a")), data(5))) == {"a": [1]}


def test_data_that_is_shuffled_at_every_pass():
    model = model_of((5,), dead(L.Dense, 4, name="a"))
    shuffled = tf.data.Dataset.from_tensor_slices(data(5)).shuffle(40).batch(7)
    assert removed(shrink(model, shuffled)) == {"a": [1]}


@pytest.mark.skipif(not LEGACY and KERAS < (3, 4), reason="Keras 3.3 casts a model's inputs where nothing shows it")
def test_mixed_precision():
    model = model_of((5,), dead(L.Dense, 4, name="a", dtype="mixed_float16"), optimizer="adam")
    found = shrink(model, data(5))
    assert removed(found) == {"a": [1]}
    assert found.model.get_layer("a").compute_dtype == "float16"
    assert np.allclose(outputs(model, data(5))[0], outputs(found.model, data(5))[0], atol=0.02)


def test_nested_and_shared_models():
    inner = K.Sequential([K.Input((5,)), dead(L.Dense, 4, name="hidden"), L.Dense(5)], name="inner")
    x = K.Input((5,))
    model = K.Model(x, L.Dense(1)(inner(inner(x))))
    found = shrunk(model, data(5))
    assert removed(found) == {"hidden": [1]}
    assert found.model.get_layer("inner").layers[0].units == 3


# --- the user's own functions -----------------------------------------------------------------------------------------


def fixed_values(shape, dtype=None):
    """An initialiser that is made for one shape."""
    assert shape[-1] in (4, 2)
    return tf.constant(np.random.default_rng(0).normal(size=shape), dtype)


class RaggedInitializer(K.initializers.Initializer):
    def __call__(self, shape, dtype=None, **options):
        return fixed_values(shape, dtype)

    def get_config(self):
        return {"table": [[1.0], [2.0, 3.0]]}

    @classmethod
    def from_config(cls, config):
        return cls()


class OwnConstraint(K.constraints.Constraint):
    def __call__(self, weight):
        return weight


@pytest.mark.parametrize(
    "start", [fixed_values, lambda shape, dtype=None: fixed_values(shape, dtype), RaggedInitializer()]
)
def test_initialisers_of_the_users_need_not_be_registered_nor_fit_another_shape(start):
    parts = {"kernel_initializer": start, "kernel_constraint": OwnConstraint()}
    untouched = L.Dense(4, name="untouched", **parts)
    found = shrunk(model_of((5,), untouched, dead(L.Dense, 4, name="a", **parts), L.Dense(2, **parts)), data(5))
    assert removed(found) == {"a": [1]}
    again = found.model.get_layer("untouched")
    assert again.kernel_initializer is start
    assert again.kernel_constraint is parts["kernel_constraint"]


# --- the result -------------------------------------------------------------------------------------------------------


def test_the_smaller_model_can_be_saved_and_loaded(tmp_path):
    x = data(6, 6, 2)
    model = model_of((6, 6, 2), dead(L.Conv2D, 4, 3, name="a"), optimizer="adam")
    model.fit(x, data(2), verbose=0)
    new = shrunk(model, x).model
    new.save(tmp_path / "small.keras")
    loaded = K.models.load_model(tmp_path / "small.keras")
    assert np.array_equal(outputs(new, x)[0], outputs(loaded, x)[0])


def test_the_table():
    model = model_of((5,), dead(L.Dense, 4, name="a", neurons=(0, 1)))
    found = shrunk(model, data(5))
    assert repr(found) == "<Shrunk: 2 units removed, 47.1% fewer parameters>"
    assert str(found).splitlines()[:8] == [
        "Shrunk: 2 units removed, 47.1% fewer parameters",
        "           units         parameters",
        "layer     before  after      before  after",
        "-------------------------------------------",
        "a              4      2          24     12",
        "out            2      2          10      6",
        "-------------------------------------------",
        "total                            34     18",
    ]
    assert "Predictions on 40 samples agree" in str(found)
    assert found.report["a"].dead.tolist() == [True, True, False, False]


def test_the_times_of_equal_models_are_not_compared():
    found = shrunk(model_of((5,), L.Dense(4, "relu", bias_initializer="ones", name="a")), data(5))
    assert found.units_removed == 0
    assert "times as fast" not in str(found)
