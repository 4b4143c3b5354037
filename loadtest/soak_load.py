"""The load of a soak: wrk at a rate."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from loadtest.bench_figures import BenchError
from loadtest.bench_load import CONNECTIONS, Questions, Wrk

# At the end nobody asks for so long: what is under way gets its answer before wrk hangs up, so
# that answers and requests can be compared to the last one.
_QUIET_S = 1
# wrk ends by itself; what takes this much longer has hung.
_LATE_S = 30
# A rate that nobody reaches: asked for without a pause.
NO_PAUSE_PER_S = 1e9

# wrk sleeps a little after every so many requests. Its own `delay` costs it a timer and two calls
# of the kernel a request, so that wrk would decide how much is answered. An empty request is none:
# the connection waits until the end. Who is late catches up on a hundredth of a second at most.
# The first request wrk only prepares, and never sends.
_PACED = """
local ffi = require("ffi")
ffi.cdef([[
  typedef struct {{ long s; long ns; }} soak_time;
  int clock_gettime(int, soak_time *);
  int nanosleep(const soak_time *, soak_time *);
]])
local at, monotonic, turn, late_s = ffi.new("soak_time"), 1, 32, 0.01
local ask, asked, until_s, due_s, is_over, threads = request, 0, nil, 0, false, {{}}
sent = -1
local function look()
  ffi.C.clock_gettime(monotonic, at)
  local now_s = tonumber(at.s) + tonumber(at.ns) / 1e9
  until_s = until_s or now_s + {seconds}
  is_over, asked = now_s >= until_s, 0
  due_s = math.max(due_s + turn / {rate_per_s}, now_s - late_s)
  local early_s = due_s - now_s
  if early_s > 0 then
    at.s, at.ns = 0, early_s * 1e9
    ffi.C.nanosleep(at, nil)
  end
end
function request()
  asked = asked + 1
  if asked >= turn or not until_s then look() end
  if is_over then return "" end
  sent = sent + 1
  return ask()
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


@dataclass(frozen=True, slots=True)
class PacedLoad:
    """wrk asking a server for identifiers at random."""

    wrk: Wrk
    url: str
    prefix: str
    questions: Questions

    def script(self, rate_per_s: float, seconds: int, seed: int) -> str:
        """wrk's script: that of the benchmark, with pauses."""
        asking = self.questions.script(self.prefix, seed)
        return asking + _PACED.format(seconds=seconds, rate_per_s=f"{rate_per_s:.1f}")

    async def run(self, rate_per_s: float, seconds: int, seed: int) -> Load:
        """Ask for `seconds` at a rate, then wait for the last answers.

        Raises:
            BenchError: if wrk failed; wrong answers are in the figures.
        """
        script = self.wrk.folder / "soak.lua"
        script.write_text(self.script(rate_per_s, seconds, seed))
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
