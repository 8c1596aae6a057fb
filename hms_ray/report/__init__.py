"""Studies and ladders in a browser: the report, the row browser, TensorBoard; frames and figures.

May import ``search``, ``blend``, ``study`` and rooms below; no Ray. Its frames and figures are
for notebooks too. What commands print is in ``display``.
"""
