"""The entry point of `python -m relu_probe`, which runs the same commands as `relu-probe`."""

import sys

from relu_probe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
