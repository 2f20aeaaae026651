"""The commands `relu-probe check` and `relu-probe demo`: arguments, exit codes, loading of models and data."""
