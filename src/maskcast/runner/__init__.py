"""Runs stages: their contract, atomic outputs, processes and tracking."""
