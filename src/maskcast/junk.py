"""What lies in folders beside data."""


def is_junk(name: str) -> bool:
    """Tells what an operating system left behind (`__MACOSX`, `.DS_Store`, `._x`, `Thumbs.db`) from data."""
    return name.startswith(".") or name in {"__MACOSX", "Thumbs.db", "desktop.ini"}
