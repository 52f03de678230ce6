"""Data sets by address: folders and S3."""
