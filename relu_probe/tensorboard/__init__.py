"""Event files of a run directory, in which TensorBoard finds the reports."""
