"""The layers of a Keras model that end in a ReLU, and their names. Only this folder uses private names of Keras."""
