"""Segmenters: frames to masks."""
