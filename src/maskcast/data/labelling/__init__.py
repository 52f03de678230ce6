"""Imports and exports labels of other tools, and propagates labels from a few frames to all."""
