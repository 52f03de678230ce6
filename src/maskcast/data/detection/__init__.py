"""Detection sets: images with bounding boxes."""
