"""Commands beside the stages: ``python -m maskcast models``, ``forecast``, ``serve``, ``evaluate-coco``."""
