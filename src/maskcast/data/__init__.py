"""Data: raw layouts, the clip store, and windows and augmentation for training."""
