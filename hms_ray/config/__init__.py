"""Every setting: frozen pydantic models, YAML loading, ``--set``, errors with the nearest name.

May import ``storage``, ``errors`` and ``text``. One module per group of settings; a shipped
example of each stands in ``search_spaces/``.
"""
