"""Params for somebody's data: what `maskcast init` writes, and how long it will take."""
