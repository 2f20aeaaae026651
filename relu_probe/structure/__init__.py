"""Which layers of a Keras model end in a ReLU, and what they are called. Keras's private names are used only here."""
