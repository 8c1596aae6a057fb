"""A simulator that writes folders in the competition's format and knows their truth.

Imported by the command line and tests alone. May import ``signal``, ``evaluate``,
``competition`` and rooms below.
"""
