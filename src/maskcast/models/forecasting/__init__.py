"""Forecasters: what was seen to what follows."""
