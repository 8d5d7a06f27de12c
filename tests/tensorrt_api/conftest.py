"""Let tests of this folder import the modules beside them, which begin with trt_."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
