"""A simulator that writes folders in the competition's format and knows their truth.

Only the command line and tests import it. It may import ``pack`` (for its
worker processes), ``signal``, ``evaluate``, ``competition`` and rooms below.
"""
