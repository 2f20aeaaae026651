"""The Keras callback: when to measure, and where the results go."""
