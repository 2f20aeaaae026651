"""The Keras version under test."""

import tensorflow as tf

LEGACY = not hasattr(tf.keras, "ops")  # with TF_USE_LEGACY_KERAS=1 tf.keras is tf_keras
KERAS = (2,) if LEGACY else tuple(int(number) for number in tf.keras.__version__.split(".")[:2])

# Older versions of Keras load no model file safely, so that `relu-probe check` asks for this option.
HAS_SAFE_MODE = not LEGACY and tuple(int(number) for number in tf.keras.__version__.split(".")[:3]) >= (3, 15, 1)
TRUST = [] if HAS_SAFE_MODE else ["--trust-model"]
