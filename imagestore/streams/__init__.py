"""Byte streams: ZFS send streams, compression, disk formats."""
