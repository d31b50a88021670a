"""`python -m manyface` is the same program as `manyface`."""

import sys

from manyface.cli import main

sys.exit(main())
