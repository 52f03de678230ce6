"""kfp's HTTP client with timeouts, retries, and a one-line error for each kind of failure."""

import itertools
import json
import random
import time
from typing import Any
from urllib.parse import urlsplit

from kfp_server_api.configuration import Configuration
from kfp_server_api.exceptions import ApiException
from kfp_server_api.rest import RESTClientObject
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationValueError

from maskcast.errors import MaskcastError
from maskcast.progress import log_if_slow, say

TIMEOUT_S = (10, 120)  # seconds to connect, to answer
RETRIES = 8  # about 90 s in total, long enough to replace a server's pod
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LOGIN = (
    "log in again and set KF_PIPELINES_TOKEN, KF_PIPELINES_COOKIE or --token-file, or fix --host "
    "(a full Kubeflow has the API below /pipeline)"
)
TRY_AGAIN = "try again, or see the logs of the ml-pipeline pods"
MAY_HAVE_SUCCEEDED = "the request may have succeeded nevertheless; check `maskcast pipeline status`"
REMEDIES = {
    400: "fix the value that the message names",
    401: f"the credentials are missing, wrong or expired: {LOGIN}",
    403: "these credentials have no permission in namespace {namespace}, or it does not exist: fix --namespace, "
    "KF_PIPELINES_TOKEN or KF_PIPELINES_COOKIE",
    404: "fix the id or --namespace (`maskcast pipeline status` lists runs)",
    409: "run the same command again",
}


class RefusedError(MaskcastError):
    """The server refused a request."""


class Transport(RESTClientObject):
    """Sends kfp's requests; only reading requests are retried, so that nothing is done twice.

    Args:
        config: kfp's configuration of the connection.
        namespace: requested namespace, for errors.
    """

    def __init__(self, config: Configuration, namespace: str) -> None:
        config.retries = False  # urllib3's own retries are silent, and follow redirects with the credentials
        super().__init__(config)
        self.host, self.namespace = config.host, namespace
        self.has_answered = False

    def request(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        _request_timeout: Any = None,
        **rest: Any,
    ) -> Any:
        """Returns the response.

        If a server is unreachable or reports a temporary error, the request is retried with increasing delays,
        unless it has never answered.

        Raises:
            MaskcastError: if there is no usable response; one line with the remedy.
        """
        for attempt in itertools.count(1):
            try:
                with log_if_slow(f"an answer of {self.host}"):
                    answer = super().request(
                        method,
                        url,
                        headers=dict(headers or {}),
                        _request_timeout=_request_timeout or TIMEOUT_S,
                        **rest,
                    )
                    body = answer.data  # reads the whole body, which may be truncated or not gzip
            except (HTTPError, ApiException) as error:
                self.has_answered |= isinstance(error, ApiException)
                problem, remedy = self._explain(error)
                wanted_s = retry_after_s(error)
                # KFP answers with 500 for a missing log.
                may_pass = self.has_answered and _is_temporary(error) and not url.endswith("/log")
                sent = not isinstance(error, ConnectTimeoutError)
                if sent and method != "GET" and not isinstance(error, ApiException):
                    remedy = MAY_HAVE_SUCCEEDED
                if attempt > RETRIES or not may_pass or (sent and method != "GET"):
                    kind = RefusedError if isinstance(error, ApiException) else MaskcastError
                    raise kind(f"{problem}; {remedy}") from None
            else:
                if "html" in (answer.getheader("content-type") or "html"):
                    raise MaskcastError(f"{self.host} answers with a web page instead of the API; {LOGIN}")
                if url.endswith("/log") or _is_object(body):  # a log is plain text
                    self.has_answered = True
                    return answer
                if not self.has_answered:
                    raise not_kubeflow(self.host, body.decode("utf-8", "replace"))
                problem, wanted_s = f"{self.host} sends a damaged answer ({body[:100]!r})", 0.0
                if attempt > RETRIES or method != "GET":
                    raise MaskcastError(f"{problem}; {TRY_AGAIN if method == 'GET' else MAY_HAVE_SUCCEEDED}")
            pause = pause_s(attempt, wanted_s)
            say(f"{problem}; retrying in {pause:.0f} s ({attempt} of {RETRIES})")
            time.sleep(pause)
        raise AssertionError("the loop ends by itself")

    def _explain(self, error: HTTPError | ApiException) -> tuple[str, str]:
        """Returns the problem, and the remedy."""
        if not isinstance(error, ApiException):
            reason = str(error.args[-1]).rsplit(": ", 1)[-1]
            return f"{self.host} is unreachable ({reason})", "fix --host, or check that the server runs"
        if error.status == 0:
            reason = error.reason.splitlines()[-1]
            remedy = "set SSL_CERT_FILE to the CA certificate, or fix --host (http or https)"
            return f"{self.host}: TLS connection failed ({reason})", remedy
        if 300 <= error.status < 400:
            target = urlsplit(error.headers.get("Location", ""))
            address = f"{target.scheme}://{target.netloc}{target.path}" if target.netloc else target.path
            return f"{self.host} redirects to {address}, perhaps a login page", LOGIN
        remedy = REMEDIES.get(error.status, TRY_AGAIN)
        return f"{self.host} answers {error.status}: {_message(error)}", remedy.format(namespace=self.namespace)


def not_kubeflow(host: str, body: str) -> MaskcastError:
    """Returns the error for an HTTP server that is not Kubeflow Pipelines."""
    return MaskcastError(
        f"{host} is not a Kubeflow Pipelines server (it answers {body[:100]!r}); fix --host (a full Kubeflow has "
        "the API below /pipeline)"
    )


def pause_s(attempt: int, wanted_s: float) -> float:
    """Returns the seconds before the next attempt: random, growing, and at least those that the server wants.

    Args:
        attempt: counts from 1.
        wanted_s: what the server wants; more than the longest pause is not waited.
    """
    pause = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311
    return max(pause, min(wanted_s, LONGEST_PAUSE_S))


def retry_after_s(error: HTTPError | ApiException) -> float:
    """Returns the seconds that a server wants to be left alone; 0 if it does not say, or gives a date."""
    after = (getattr(error, "headers", None) or {}).get("Retry-After", "")
    return float(after) if after.isdecimal() else 0.0


def _is_object(body: bytes) -> bool:
    """Whether a response is a JSON object; on another, kfp would fail somewhere."""
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def _is_temporary(error: HTTPError | ApiException) -> bool:
    """Returns whether the same request may succeed a moment later."""
    if isinstance(error, ApiException):
        return error.status == 429 or error.status >= 500
    return not isinstance(error, LocationValueError)


def _message(error: ApiException) -> str:
    """Returns the server's message, shortened to 300 characters."""
    try:
        message = str(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        message = str(error.reason)
    return message if len(message) <= 300 else f"{message[:297]}..."
