"""Checked reading of COCO files: records and masks."""
