"""Scores of masks, forecasts and detections."""
