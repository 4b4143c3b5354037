"""Questions to the running node over HTTP; no proxy is ever asked on the way."""

import http.client
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from node.cli.failure import CommandError, ExitCode

# A batch of 1,000 records of the largest size is 246 MB; nothing larger is an answer of a node.
ANSWER_SIZE_BYTES_MAX = 268_435_456
TIMEOUT_S = 30.0

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status and body."""

    status: int
    body: bytes

    def document(self) -> object:
        """The body as JSON, or None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def ask(
    address: str,
    method: str,
    path: str,
    *,
    document: object = None,
    key_text: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> HttpAnswer:
    """The answer of the node at `address` (`host:port`).

    Raises:
        CommandError: if it cannot be reached or does not answer in time.
    """
    host, port = _host_port(address)
    headers = {"Content-Type": "application/json"} if document is not None else {}
    if key_text:
        headers["Authorization"] = f"Bearer {key_text}"
    body = None if document is None else json.dumps(document).encode()
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return HttpAnswer(answer.status, answer.read(ANSWER_SIZE_BYTES_MAX))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CommandError(
            f"http://{address}{path}: {reason}", "idnode doctor", ExitCode.UNREACHABLE
        ) from error
    finally:
        connection.close()


def _host_port(address: str) -> tuple[str, int]:
    parts = urlsplit(f"//{address}")
    host = parts.hostname or "127.0.0.1"
    return _ANY_ADDRESS.get(host, host), parts.port or 80
