"""The image that components name until a run says which one it uses (``pipelines/cluster.py``)."""

IMAGE = "maskcast-python"
