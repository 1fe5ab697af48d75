"""`python -m dermsynth`."""

import sys

from dermsynth.cli import main

if __name__ == "__main__":
    sys.exit(main())
