"""The three ways to count: over data, in a custom training loop, and in Keras's `fit`."""
