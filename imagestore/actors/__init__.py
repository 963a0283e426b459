"""Trio actors: they own the zpool, the fetch queue and each guest."""
