"""Byte streams: ZFS send streams, compression, disk formats.

Reading: ``content`` (what a body is) → ``parser`` (records) → ``checker``
(checksums, ``rules``, packages) → ``applier`` (a file) or ``guard`` (a real
pool).  Writing: ``changes`` → ``plain`` → ``sealing``, behind ``writer``.
Tools: ``inspection``, ``extract``, ``make``.

Synchronous code for worker threads; nothing here knows pools, journals or
trio.  numpy and the codecs are loaded when the first stream is at hand.
"""
