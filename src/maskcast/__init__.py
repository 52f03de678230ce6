"""maskcast: learn to segment and forecast video from few labels.

Names are imported on first use, so that ``import maskcast`` is fast.
"""

from importlib import import_module

__version__ = "0.1.0"
_MODULES = {
    "ClipStore": "maskcast.data.clip_store.reader",
    "Forecast": "maskcast.serving.forecasts",
    "MaskcastError": "maskcast.errors",
    "Pipeline": "maskcast.serving.api",
    "Segmentation": "maskcast.serving.api",
    "Segmenter": "maskcast.serving.api",
    "Session": "maskcast.inference.session",
    "Step": "maskcast.inference.session",
    "load": "maskcast.serving.api",
    "resize_frames": "maskcast.data.images",
    "run_stage": "maskcast.runner.run",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> object:
    """Imports a name on first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Returns all names, including those not imported yet."""
    return sorted({*globals(), *__all__})
