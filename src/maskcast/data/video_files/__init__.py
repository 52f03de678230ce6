"""Video files: opening, indexing, decoding, and detection of cuts."""
