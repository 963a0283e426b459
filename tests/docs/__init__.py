"""The documents under docs/."""
