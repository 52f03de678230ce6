"""What follows in a video: `python docs/examples/first_forecast.py models:/maskcast@champion street.mp4`."""

import sys

import numpy as np

import maskcast

address, video = sys.argv[1:]
model = maskcast.load(address)
result = model.forecast(video)
result.save_film("forecast.mp4")

frames: np.ndarray = result.frames  # (T, H, W, 3) uint8 RGB: the frames seen, as they are in the video
seen: np.ndarray = result.seen  # (T, h, w) uint8 class ids: their masks, at the model's size
masks: np.ndarray = result.masks  # (horizon, h, w) uint8 class ids: the forecast
sure: np.ndarray | None = result.confidence  # (horizon, h, w) uint8: probability of the class, 255 = 1
for number, mask in zip(result.frames_forecast, masks, strict=True):
    names = [result.classes[class_id] for class_id in np.unique(mask)]
    print(f"frame {number}: {', '.join(names)}")
print(result.warning or "the video is like those that the model was trained on")
