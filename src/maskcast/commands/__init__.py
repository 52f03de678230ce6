"""Commands beside the stages: ``maskcast models``, ``forecast``, ``serve``, ``pipeline``, ``evaluate-coco``."""
