"""The pipelines on Kubeflow: `python -m pipelines --help`."""

from collections.abc import Callable, Mapping
from typing import Any

from kfp.dsl.base_component import BaseComponent

from pipelines.cluster import Placement
from pipelines.detection import detection
from pipelines.forecasting import forecasting

PIPELINES: dict[str, Callable[[Mapping[str, Any], Placement], BaseComponent]] = {
    "forecasting": forecasting,
    "detection": detection,
}
