"""nginx with one worker that serves a constant."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench_figures import BenchError
from loadtest.bench_programs import Program, answers, ask, on_core
from loadtest.ports import free_port

_CONFIGURATION = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port}{ssl};
    {certificate}
    location / {{ {says} }}
  }}
}}
"""
_CERTIFICATE_DAYS = "2"


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, openssl: str, folder: Path) -> "Certificate":
        """A certificate of its own for 127.0.0.1, on the curve that servers use."""
        made = cls(folder / "certificate.pem", folder / "key.pem")
        words = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        words += ["-nodes", "-subj", "/CN=127.0.0.1", "-days", _CERTIFICATE_DAYS]
        words += ["-keyout", str(made.key), "-out", str(made.certificate)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"openssl made no certificate: {done.stderr.strip()[-300:]}")
        return made


@dataclass(frozen=True, slots=True)
class Constant:
    """What every path is answered with: a body, or a redirect where `location` is set."""

    status: int
    body: bytes = b""
    content_type: str = ""
    location: str = ""

    @property
    def directives(self) -> str:
        """The constant as nginx is told.

        Raises:
            BenchError: for what nginx would not take as it is.
        """
        if self.location:
            return f"return {self.status} {self.location};"
        text = self.body.decode()
        if "$" in text:
            raise BenchError(f"nginx cannot serve {text[:100]!r}: it has a $, a variable to nginx")
        quoted = text.replace("\\", "\\\\").replace("'", "\\'")
        return f"default_type '{self.content_type}'; return {self.status} '{quoted}';"


class Nginx:
    """A running nginx in a folder of its own."""

    def __init__(
        self,
        program: str,
        folder: Path,
        core: int | None,
        constant: Constant,
        certificate: Certificate | None = None,
    ) -> None:
        folder.mkdir()
        port = free_port()
        self.constant = constant
        self.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{port}"
        files = certificate and (
            f"ssl_certificate {certificate.certificate}; ssl_certificate_key {certificate.key};"
        )
        (folder / "nginx.conf").write_text(
            _CONFIGURATION.format(
                port=port,
                ssl="" if certificate is None else " ssl",
                certificate=files or "",
                says=constant.directives,
            )
        )
        words = [program, "-p", str(folder), "-e", "error.log", "-c", "nginx.conf"]
        self._program = Program([*on_core(core), *words], folder / "nginx.out")

    def wait_ready(self) -> None:
        """Return when it answers."""
        self._program.wait_ready(lambda: answers(self.url, "/", self.constant.status))

    def check(self) -> None:
        """Nothing, if it answers the constant.

        Raises:
            BenchError: if it does not.
        """
        answer = ask(self.url, "/")
        constant = self.constant
        is_right = answer.status == constant.status and (
            answer.headers.get("location", "") == constant.location
            and (bool(constant.location) or answer.body == constant.body)
        )
        if not is_right:
            raise BenchError(f"nginx: wrong answer: {answer.status} {answer.body[:200]!r}")

    def stop(self) -> None:
        """End it; safe to call twice."""
        self._program.stop()
