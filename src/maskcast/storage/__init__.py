"""Storage of data sets: local folders and S3."""
