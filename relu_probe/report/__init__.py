"""What the numbers mean: reports and their laws, histories, limits, tables. NumPy and rich, never TensorFlow."""
