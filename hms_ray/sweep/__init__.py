"""Search and training on Ray: the only package that imports ray."""

import os
import sys

# Ray reads this once, when it is imported; afterwards it would contradict itself.
if "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
