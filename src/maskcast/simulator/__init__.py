"""Rigid bodies on a plane, seen through a camera: clips with exact masks."""
