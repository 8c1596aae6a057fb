"""Ray without the search: cluster, nodes, worker groups, packing and ladders as Ray tasks.

May import every room below ``sweep``, and ray. Importing it sets ``RAY_AUTH_MODE``. What a
worker does with a fold is in ``experiment`` and ``train``; the study loop is in ``sweep``.
"""

import os
import sys

# Ray reads this once, when it is imported; afterwards it would contradict itself.
if "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
