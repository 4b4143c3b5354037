"""The load of a soak: wrk at a rate, each connection waiting a while before it asks again."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from loadtest.bench_figures import BenchError
from loadtest.bench_load import Questions, Wrk

# As in the benchmark. wrk looks at the timers of all that wait, each time it looks at one: with 256
# it took so much of the second core that it was wrk which decided how late an answer was seen.
CONNECTIONS = 64
# At the end nobody asks for so long: what is under way gets its answer before wrk hangs up, so
# that answers and requests can be compared to the last one.
_QUIET_S = 1
# wrk ends by itself; what takes this much longer has hung.
_LATE_S = 30

# `sent` has no request that wrk only prepared: it does so once before the first delay.
_PACED = """
local ffi = require("ffi")
ffi.cdef("typedef struct {{ long s; long ns; }} soak_time; int clock_gettime(int, soak_time *);")
local at, monotonic, an_hour_ms = ffi.new("soak_time"), 1, 3600000
local ask, until_s, threads = request, nil, {{}}
sent = 0
function request()
  if until_s then sent = sent + 1 end
  return ask()
end
function delay()
  ffi.C.clock_gettime(monotonic, at)
  local now_s = tonumber(at.s) + tonumber(at.ns) / 1e9
  until_s = until_s or now_s + {seconds}
  if now_s >= until_s then return an_hour_ms end
  return math.floor(2 * {wait_ms} * math.random() + math.random())
end
function setup(thread) threads[#threads + 1] = thread end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{{"answered":%d,"sent":%d,"p50_us":%d,"p99_us":%d,"errors":'
    .. '{{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}}}\\n', summary.requests,
    threads[1]:get("sent"), latency:percentile(50), latency:percentile(99), e.connect, e.read,
    e.write, e.status, e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """One load: requests, whole answers, their times (ms), and errors by kind, where any."""

    seconds: int
    sent: int
    answered: int
    p50_ms: float
    p99_ms: float
    errors: Mapping[str, int]

    @property
    def rate_per_s(self) -> float:
        return self.answered / self.seconds


def load_from_wrk(output: str, seconds: int) -> Load:
    """The figures in the last line of wrk's output, which the load script writes as JSON.

    Raises:
        BenchError: if there is no such line.
    """
    found = [line for line in output.splitlines() if line.startswith("{")]
    if not found:
        raise BenchError(f"wrk gave no figures: {output.strip()[-300:]!r}")
    figures = json.loads(found[-1])
    errors = {name: number for name, number in figures["errors"].items() if number}
    p50_ms, p99_ms = figures["p50_us"] / 1e3, figures["p99_us"] / 1e3
    return Load(seconds, figures["sent"], figures["answered"], p50_ms, p99_ms, errors)


def first_wait_ms(rate_per_s: float) -> float:
    """How long each connection has to wait for this rate, if an answer took no time."""
    return 1e3 * CONNECTIONS / rate_per_s


def calibrated_wait_ms(rate_per_s: float, tried_ms: float, tried_rate_per_s: float) -> float:
    """The wait that gives `rate_per_s` where `tried_ms` gave `tried_rate_per_s`; 0 at the least.

    What a round took beyond the wait (the answer, and wrk itself) it takes again.
    """
    beyond_ms = first_wait_ms(tried_rate_per_s) - tried_ms
    return max(0.0, first_wait_ms(rate_per_s) - beyond_ms)


@dataclass(frozen=True, slots=True)
class PacedLoad:
    """wrk asking a server for identifiers at random, at a rate that `wait_ms` decides."""

    wrk: Wrk
    url: str
    prefix: str
    questions: Questions

    def script(self, wait_ms: float, seconds: int, seed: int) -> str:
        """wrk's script: that of the benchmark, with pauses."""
        asking = self.questions.script(self.prefix, seed)
        return asking + _PACED.format(seconds=seconds, wait_ms=f"{wait_ms:.4f}")

    async def run(self, wait_ms: float, seconds: int, seed: int) -> Load:
        """Ask for `seconds`, then wait for the last answers.

        Raises:
            BenchError: if wrk failed; wrong answers are in the figures.
        """
        script = self.wrk.folder / "soak.lua"
        script.write_text(self.script(wait_ms, seconds, seed))
        lasts_s = seconds + _QUIET_S
        words = [*self.wrk.start, self.wrk.program, "-t1", f"-c{CONNECTIONS}", f"-d{lasts_s}s"]
        words += ["-s", str(script), self.url + self.questions.target(self.prefix)]
        return load_from_wrk(await _output_of(words, lasts_s + _LATE_S), seconds)


async def _output_of(words: list[str], within_s: float) -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(within_s):
            said, complaint = await process.communicate()
    except TimeoutError:
        raise BenchError(f"wrk did not end within {within_s} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        why = complaint.decode("utf-8", "replace").strip()
        raise BenchError(f"wrk ended with {process.returncode}: {why}")
    return said.decode("utf-8", "replace")
