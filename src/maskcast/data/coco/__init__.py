"""COCO files: their records and masks, checked."""
