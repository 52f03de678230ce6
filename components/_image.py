"""The placeholder image of components, which a run replaces (``pipelines/cluster.py``)."""

IMAGE = "maskcast-python"
