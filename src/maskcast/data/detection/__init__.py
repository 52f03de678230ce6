"""Detection sets: images with boxes."""
