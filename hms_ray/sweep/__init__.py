"""Search and training on Ray: the only package that imports ray."""

import os

# Ray reads this when it is imported, so it stands where every path to Ray passes.
os.environ.setdefault("RAY_AUTH_MODE", "token")
