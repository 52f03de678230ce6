"""Trained models at work: clips to masks, masks to forecasts, images to boxes."""
