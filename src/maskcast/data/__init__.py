"""Clips: raw layouts in, the clip store out, windows and augmentation for training."""
