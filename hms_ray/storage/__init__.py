"""Files that are whole or absent: the fold store, atomic writers, locks, hashes.

May import ``errors`` and ``text`` alone. What a study's folder holds is in ``study``; packs
have a format of their own in ``pack``.
"""
