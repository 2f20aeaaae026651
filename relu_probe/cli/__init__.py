"""The commands `relu-probe demo`, `check`, `show` and `diff`: arguments, exit codes, loading of models and data."""
