"""Inference with trained models: clips to masks, masks to forecasts, images to boxes."""
