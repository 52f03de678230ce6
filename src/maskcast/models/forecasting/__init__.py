"""Forecasters: from past frames or masks to future ones."""
