"""What lies in folders beside data."""


def is_junk(name: str) -> bool:
    """Tells what a system left behind (`__MACOSX`, `.DS_Store`, `Thumbs.db`, Synology's `@eaDir`) from data."""
    return name.startswith(".") or name in {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"}
