"""Video files: opening, indexing, decoding, cuts between shots."""
