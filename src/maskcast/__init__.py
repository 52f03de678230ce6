"""maskcast: learn to segment and forecast video from few labels."""

__version__ = "0.1.0"
