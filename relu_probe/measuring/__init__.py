"""The three ways to count: over data, in a training loop of the user's, and in Keras's `fit`."""
