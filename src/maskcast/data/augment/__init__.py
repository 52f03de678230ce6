"""Augmentation: what may change about frames, masks and boxes."""
