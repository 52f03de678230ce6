"""Architectures, one module each with its config class."""
