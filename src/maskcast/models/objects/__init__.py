"""Objects: where they are, where they go, and how they are painted."""
