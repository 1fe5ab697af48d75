"""`python -m dermsynth`."""

import sys

from dermsynth.cli import main

if __name__ == "__main__":
    # What usage lines begin with; parsers that jsonargparse makes on the way would say `__main__.py`.
    sys.argv[0] = "dermsynth"
    sys.exit(main())
