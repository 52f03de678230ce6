"""Metrics of a server, for Prometheus."""

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CLIENT_CLOSED = 499  # counted, as in nginx, if a client did not wait for its answer
disable_created_metrics()  # else a series of the time of its start beside each counter


class ServerMetrics:
    """Metrics of one server since its start.

    Attributes:
        in_flight: requests without an answer yet.
        computed_s: seconds of computing answers.
        inputs: answered clips (frames for a masker).
        shifted: inputs with a warning that they differ from the training data.
        sessions: open sessions.
        session_frames: frames that sessions masked.
    """

    def __init__(self, name: str, version: str, digest: str) -> None:
        self._registry = registry = CollectorRegistry()
        model = {"name": name, "version": version, "digest": digest}
        Gauge("maskcast_model_info", "The model that answers.", model, registry=registry).labels(**model).set(1)
        self._answers = Counter(
            "maskcast_requests", "Requests to infer, by the status of the answer.", ["code"], registry=registry
        )
        self._seconds = Histogram(
            "maskcast_request_seconds",
            "Seconds from a request to its answer.",
            buckets=BOUNDS_S,
            registry=registry,
        )
        self.in_flight = Gauge(
            "maskcast_requests_under_way", "Requests that have no answer yet.", registry=registry
        )
        self.computed_s = Counter("maskcast_computed_seconds", "Seconds of computing.", registry=registry)
        self.inputs = Counter("maskcast_inputs", "Clips answered; of a masker, frames.", registry=registry)
        self.shifted = Counter("maskcast_inputs_unlike", "Clips unlike those of the training.", registry=registry)
        self.sessions = Gauge("maskcast_sessions", "Sessions that are open.", registry=registry)
        self.session_frames = Counter("maskcast_session_frames", "Frames that sessions masked.", registry=registry)

    def answered(self, code: int, seconds: float) -> None:
        """Counts an answer.

        Args:
            code: HTTP status.
            seconds: since the arrival of the request.
        """
        self._answers.labels(code).inc()
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus's text format 0.0.4."""
        return generate_latest(self._registry)
