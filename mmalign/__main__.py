"""``python -m mmalign``."""

from __future__ import annotations

import sys

from mmalign.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
