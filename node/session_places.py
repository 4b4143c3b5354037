"""Places of sessions in Redis, a fixed number of them: nobody can fill the memory.

A session has a place that its id allows; who sets up sessions without end pushes out those that
nobody has authenticated yet, and never another.
"""

from typing import Final

from resolver.errors import CacheUnavailableError

# Places of a new session: with half of them taken, one in 16 finds them all taken.
CHOICES: Final = 4

# KEYS: places, hashes whose field `a` says who was authenticated ('' for nobody yet). Sets the
# local `place`: a free one, else one of nobody; ends the script with 0 if there is none.
CHOOSE: Final = """
local place
for i = #KEYS, 1, -1 do
    local authenticated = redis.call('HGET', KEYS[i], 'a')
    if not authenticated then
        place = i
    elseif authenticated == '' and not place then
        place = i
    end
end
if not place then
    return 0
end
"""
# KEYS: a place, whose field `id` says whose it is. ARGV: id. Empties it; 0 if it is another's.
CLOSE_SCRIPT: Final = """
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then
    return 0
end
return redis.call('DEL', KEYS[1])
"""


def chosen(place: int) -> int:
    """The number of the place, from 0, that a script which begins with CHOOSE has given.

    Raises:
        CacheUnavailableError: if all places are taken by sessions of somebody.
    """
    if not place:
        raise CacheUnavailableError("no room for another session: all places are in use")
    return place - 1


def milliseconds(seconds: float) -> int:
    """A time for Redis, which takes whole milliseconds, at least one."""
    return max(1, round(1000 * seconds))
