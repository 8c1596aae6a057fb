"""The fold store, whole-file writers, locks, digests, JSON and YAML files.

May import only ``errors`` and ``text``. The files of a study are in ``study``, the format of
packs is in ``pack``.
"""
