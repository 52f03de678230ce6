"""Metrics of a server, in Prometheus's text format 0.0.4."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
Samples = list[tuple[str, dict[str, str], float]]  # suffix of the name, labels, value
CLIENT_CLOSED = 499  # counted, as in nginx, if a client did not wait for its answer


class ServerMetrics:
    """Counters of one server since its start.

    Attributes:
        in_flight: requests without an answer yet.
        computed_s: seconds of computing answers.
        inputs: answered clips (frames for a masker).
        shifted: inputs with a warning that they differ from the training data.
    """

    def __init__(self, name: str, version: str, digest: str) -> None:
        self.model = {"name": name, "version": version, "digest": digest}
        self.in_flight, self.computed_s, self.inputs, self.shifted = 0, 0.0, 0, 0
        self._answers: Counter[int] = Counter()
        self._within = [0] * (len(BOUNDS_S) + 1)
        self._seconds = 0.0

    def answered(self, code: int, seconds: float) -> None:
        """Counts an answer.

        Args:
            code: HTTP status.
            seconds: since the arrival of the request.
        """
        self._answers[code] += 1
        self._within[bisect_left(BOUNDS_S, seconds)] += 1
        self._seconds += seconds

    def text(self, sessions: int, frames: int) -> str:
        """Returns all metrics as text.

        Args:
            sessions: number of open sessions.
            frames: number of frames that sessions have masked.
        """
        within = zip([*map(str, BOUNDS_S), "+Inf"], accumulate(self._within), strict=True)
        seconds: Samples = [("_bucket", {"le": bound}, count) for bound, count in within]
        seconds += [("_sum", {}, self._seconds), ("_count", {}, sum(self._within))]
        answers: Samples = [("", {"code": str(code)}, count) for code, count in sorted(self._answers.items())]
        families: tuple[tuple[str, str, str, Samples], ...] = (
            ("model_info", "gauge", "The model that answers.", [("", self.model, 1)]),
            ("requests_total", "counter", "Requests to infer, by the status of the answer.", answers),
            ("request_seconds", "histogram", "Seconds from a request to its answer.", seconds),
            ("requests_under_way", "gauge", "Requests that have no answer yet.", [("", {}, self.in_flight)]),
            ("computed_seconds_total", "counter", "Seconds of computing.", [("", {}, self.computed_s)]),
            ("inputs_total", "counter", "Clips answered; of a masker, frames.", [("", {}, self.inputs)]),
            ("inputs_unlike_total", "counter", "Clips unlike those of the training.", [("", {}, self.shifted)]),
            ("sessions", "gauge", "Sessions that are open.", [("", {}, sessions)]),
            ("session_frames_total", "counter", "Frames that sessions masked.", [("", {}, frames)]),
        )
        lines = []
        for name, kind, meaning, samples in families:
            lines += [f"# HELP maskcast_{name} {meaning}", f"# TYPE maskcast_{name} {kind}"]
            lines += [f"maskcast_{name}{end}{_labels(labels)} {value}" for end, labels, value in samples]
        return "\n".join([*lines, ""])


def _labels(labels: Mapping[str, str]) -> str:
    shown = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return f"{{{','.join(shown)}}}" if shown else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
