"""Augmentation of frames, masks and boxes."""
