"""Makes the helpers importable as `tests.data.tiny`, here and in the worker processes, however pytest was started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
