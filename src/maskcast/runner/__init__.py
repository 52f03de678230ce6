"""Runs a stage: the contract, whole outputs, processes, tracking."""
