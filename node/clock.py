"""The only place that reads the clock; everything else takes the time as an argument."""

import time
from typing import Final

# Seconds since 1970, UTC. The function itself: a call around it would cost the hot path as much.
now_s: Final = time.time
