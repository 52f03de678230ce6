"""Inspects a folder of a user's data: its layout, the contents of its masks, the lengths of its sequences."""
