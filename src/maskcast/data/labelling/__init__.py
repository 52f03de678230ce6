"""Labels to and from other tools, and from few frames to all."""
