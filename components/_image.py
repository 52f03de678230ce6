"""The placeholder image of components, which a run replaces (``pipelines/placement.py``)."""

IMAGE = "maskcast-python"
