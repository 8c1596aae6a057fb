"""The command line: parses words, calls the room that does the work, prints what it returns.

May import every room; nothing imports it. It holds no logic: search is in ``sweep``, training in
``experiment``, blends in ``blend``, folders and packs in ``dataset`` and
``competition``. One module per group of commands (``data``, ``study``, ``look``) or large
command; each has an ``app`` that ``main`` adds. Heavy imports stay inside commands, so that
help is quick.
"""
