"""Entry point of `python -m explain`."""

import sys

from explain.explanation import main

if __name__ == "__main__":
    sys.exit(main())
