"""Scores: how good masks, forecasts and detections are."""
