"""The command line: parses words, calls the room that does the work, prints what it returns.

May import every room; nothing imports it. It holds no logic: training and search are in
``sweep`` and ``experiment``, blends in ``blend``, folders and packs in ``dataset`` and
``competition``.
"""
