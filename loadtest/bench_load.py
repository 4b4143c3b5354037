"""The load: which identifiers are asked for how, and wrk that asks."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench_figures import BenchError, Measure, measure_from_wrk

CONNECTIONS = 64
# wrk ends by itself; what takes this much longer has hung.
_LATE_S = 30
# So many requests are prepared before the load begins; more are written as they are sent.
_PREPARED_MAX = 20_000
# Different batches that are sent in turn.
_BATCHES = 200

_DONE = """
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"duration_us":%d,"p99_us":%d,"errors":{"connect":%d,'
    .. '"read":%d,"write":%d,"status":%d,"timeout":%d}}\\n', summary.requests, summary.duration,
    latency:percentile(99), e.connect, e.read, e.write, e.status, e.timeout))
end
"""
_PREPARED = """
local ready = {{}}
function init(args)
  math.randomseed({seed})
  for i = 1, {count} do
    ready[i] = wrk.format(nil, string.format("%s%010d", {start}, (i - 1) * {stride}))
  end
end
function request() return ready[math.random({count})] end
"""
_WRITTEN = """
local head, tail
function init(args)
  math.randomseed({seed})
  local whole = wrk.format(nil, {start} .. "@")
  local at = whole:find("@", 1, true)
  head, tail = whole:sub(1, at - 1), whole:sub(at + 1)
end
function request()
  return head .. string.format("%010d", (math.random({count}) - 1) * {stride}) .. tail
end
"""
_BATCH = """
local ready = {{}}
function init(args)
  math.randomseed({seed})
  wrk.headers["Content-Type"] = "application/json"
  for i = 1, {batches} do
    local names = {{}}
    for j = 1, {batch} do
      names[j] = string.format('"%s%010d"', {start}, (math.random({count}) - 1) * {stride})
    end
    local body = '{{"identifiers":[' .. table.concat(names, ",") .. ']}}'
    ready[i] = wrk.format("POST", {path}, wrk.headers, body)
  end
end
local turn = 0
function request()
  turn = turn % {batches} + 1
  return ready[turn]
end
"""


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked of a book: every `stride`-th of its identifiers, `count` of them, at random.

    `batch` identifiers in one POST, or one GET each where it is 0. `key` is an API key.
    """

    count: int
    stride: int = 1
    path: str = "/api/handles/"
    batch: int = 0
    key: str | None = None

    @property
    def numbers(self) -> range:
        return range(0, self.count * self.stride, self.stride)

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}

    def target(self, prefix: str) -> str:
        """The path of the first request."""
        return self.path if self.batch else f"{self.path}{prefix}/{0:010d}"

    def script(self, prefix: str, seed: int) -> str:
        """wrk's script; one seed is one sequence of questions, for every side that is asked."""
        names = f"{prefix}/"
        start = names if self.batch else self.path + names
        values = {
            "seed": seed,
            "count": self.count,
            "stride": self.stride,
            "start": json.dumps(start),
            "path": json.dumps(self.path),
            "batch": self.batch,
            "batches": _BATCHES,
        }
        if self.batch:
            return _BATCH.format(**values) + _DONE
        if self.count == 1:
            return _DONE
        return (_PREPARED if self.count <= _PREPARED_MAX else _WRITTEN).format(**values) + _DONE


@dataclass(frozen=True, slots=True)
class Wrk:
    """wrk on its own core; `start` is what stands before the command."""

    program: str
    start: Sequence[str]
    folder: Path

    def measure(
        self, url: str, prefix: str, questions: Questions, *, seconds: int, seed: int
    ) -> Measure:
        """Ask for `seconds` over 64 connections.

        Raises:
            BenchError: if any answer was not good or wrk failed.
        """
        script = self.folder / "load.lua"
        script.write_text(questions.script(prefix, seed))
        words = [*self.start, self.program, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
        for name, value in questions.headers.items():
            words += ["-H", f"{name}: {value}"]
        words += ["-s", str(script), url + questions.target(prefix)]
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=seconds + _LATE_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"wrk on {url} did not end within {seconds + _LATE_S} s") from None
        if done.returncode != 0:
            raise BenchError(f"wrk on {url} ended with {done.returncode}: {done.stderr.strip()}")
        return measure_from_wrk(done.stdout)
