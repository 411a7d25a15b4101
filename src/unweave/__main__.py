"""`python -m unweave`."""

import sys

from unweave.cli import main

if __name__ == "__main__":  # worker processes import this file too
    sys.exit(main())
