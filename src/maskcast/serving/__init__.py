"""Applies registered models to videos, by commands, the Python interface and a server."""
