"""What every test may use."""

import sys
from pathlib import Path

# Tables shared by several test files live beside them.
sys.path.insert(0, str(Path(__file__).parent / "parity"))
