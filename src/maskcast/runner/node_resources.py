"""The resources of a TrainJob's nodes, which the cluster file and the stage's pod read."""

import json

from maskcast.errors import MaskcastError

NODE_RESOURCES = "MASKCAST_NODE_RESOURCES"


def parse_node_resources(text: str | None) -> dict[str, str] | None:
    """Returns the limits of a node by resource, from the value of ``MASKCAST_NODE_RESOURCES``; None without one.

    Raises:
        MaskcastError: the value is not a JSON object.
    """
    if not text:
        return None
    try:
        limits = json.loads(text)
        if not isinstance(limits, dict):
            raise TypeError
    except (ValueError, TypeError):
        raise MaskcastError(
            f"{NODE_RESOURCES}: {text!r} is not a JSON object; set limits such as "
            '{"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "8"}'
        ) from None
    return {resource: str(amount) for resource, amount in limits.items()}
