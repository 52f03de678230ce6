"""Encoders, and the self-supervised methods that train them."""
