"""The driver protocol and its drivers."""
