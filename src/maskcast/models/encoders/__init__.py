"""Encoders, and the methods that train them without labels."""
