"""COCO evaluation of boxes and masks: checked files, the twelve numbers, tables, curves and pictures."""
