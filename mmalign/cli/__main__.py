"""``python -m mmalign.cli``."""

from __future__ import annotations

import sys

from mmalign.cli.main import main

sys.exit(main())
