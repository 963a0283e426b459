"""Golden journals: bytes that must be readable for ever."""
