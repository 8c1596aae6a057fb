"""All settings: frozen pydantic models, YAML files, ``--set``.

May import ``storage``, ``errors`` and ``text``. One module per group of settings; examples are in
``search_spaces/``.
"""
