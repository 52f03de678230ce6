"""Users' mask images: how they are stored, what a set of them contains, and which class each value means."""
