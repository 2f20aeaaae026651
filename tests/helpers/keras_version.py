"""The Keras version under test."""

import tensorflow as tf

LEGACY = not hasattr(tf.keras, "ops")  # with TF_USE_LEGACY_KERAS=1 tf.keras is tf_keras
KERAS = (2,) if LEGACY else tuple(int(number) for number in tf.keras.__version__.split(".")[:2])
