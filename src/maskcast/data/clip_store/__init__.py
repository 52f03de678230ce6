"""The clip store: frames and masks of many clips in a few large files."""
