"""The operating system itself crashes under a loaded store: a virtual machine, killed and started again."""
