"""Mask images of users: as they are stored, what a set of them holds, and which class each value is."""
