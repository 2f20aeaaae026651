"""The commands of `relu-probe`: arguments, exit codes, loading of models and data."""
