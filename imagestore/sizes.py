"""How a number of bytes is written for people; powers of 1024. Pure."""


def show_bytes(size_bytes: int) -> str:
    """``1.5G`` of 1610612736, ``0`` of nothing."""
    if size_bytes < 1024:
        return str(size_bytes)
    size = float(size_bytes)
    for unit in "KMGTPE":
        size /= 1024
        if size < 1000 or unit == "E":
            return f"{size:.1f}".removesuffix(".0") + unit
    raise AssertionError("unreachable: E is the last unit")
