"""Detectors: images to boxes."""
