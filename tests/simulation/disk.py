"""The journal's disk: what was not flushed may be lost, and what a failed flush lost stays lost."""

import errno
import os
import random

from tests.events.disk import SECTOR, MemoryDisk
from tests.simulation.machine import Machine


class SimulatedDisk(MemoryDisk):
    """A ``MemoryDisk`` in a machine that may die at each call.

    A failed flush leaves the pages clean, as Linux does: a later flush
    succeeds and does not write them.
    """

    machine: Machine

    def __init__(self, directory: str, contents: dict[str, bytes] | None = None) -> None:
        super().__init__(directory, contents)
        self.fails_at: dict[str, int] = {}
        """Of each call that is to fail: how many go before."""
        self._lying: dict[int, dict[int, bytes]] = {}
        """By inode: sectors that a failed flush left clean, and what is on the disk instead."""

    def after_crash(self, chance: random.Random) -> "SimulatedDisk":
        for inode in self.names.values():
            lying = self._lying.get(id(inode))
            if lying:
                durable = bytearray(inode.durable)
                for sector, data in lying.items():
                    durable[sector * SECTOR : sector * SECTOR + len(data)] = data
                inode.durable = bytes(durable)
        return SimulatedDisk(self.directory, self.crash(chance).contents())

    def after_kill(self) -> "SimulatedDisk":
        """Nobody has a file open any more."""
        self._open.clear()
        self.fails_at.clear()
        return self

    def list(self, directory: str) -> list[str]:
        return sorted(super().list(directory))

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        written = super().write(descriptor, data, offset)
        lying = self._lying.get(id(self._open[descriptor][1]))
        if lying:
            for sector in range(offset // SECTOR, -(-(offset + written) // SECTOR)):
                lying.pop(sector, None)
        return written

    def sync(self, descriptor: int) -> None:
        self._flush(descriptor, "sync")

    def sync_data(self, descriptor: int) -> None:
        self._flush(descriptor, "sync_data")

    def _flush(self, descriptor: int, call: str) -> None:
        path, inode = self._open[descriptor]
        try:
            self._call(call, path)
        except OSError:
            self._lie(inode.data, inode.durable, id(inode))
            raise
        inode.durable = bytes(inode.data)
        self.machine.step(f"{call} done")

    def _lie(self, new: bytearray, old: bytes, inode: int) -> None:
        lying = self._lying.setdefault(inode, {})
        for at in range(0, len(new), SECTOR):
            was = old[at : at + SECTOR].ljust(SECTOR, b"\0")[: len(new) - at]
            if new[at : at + SECTOR] != was:
                lying[at // SECTOR] = was

    def _call(self, name: str, path: str) -> None:
        self.machine.step(name)
        left = self.fails_at.get(name)
        if left is not None:
            self.fails_at[name] = left - 1
            if left == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        super()._call(name, path)
