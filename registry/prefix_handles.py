"""What prefix handles say of a prefix: which services answer for it, and who administers it."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import Final

from registry.records import Author, PostgresRecords, Refused, Written
from registry.refusal import ConflictError, RefusalError
from resolver.errors import InvalidValueError
from resolver.identifier import fold
from resolver.prefix_directory import handle_of
from resolver.record import HandleValue, Record
from resolver.response_code import ResponseCode
from resolver.wire import AdminRecord

# Somebody else creates and deletes the record whenever we look away.
_TRIES_MAX: Final = 5
# Where HS_ADMIN stands by custom.
_ADMIN_INDEX: Final = 100
_GONE: Final = (ResponseCode.HANDLE_NOT_FOUND, ResponseCode.HANDLE_ALREADY_EXISTS)


async def keep_values(
    records: PostgresRecords,
    prefix: str,
    values: Sequence[HandleValue],
    *,
    instead_of: Collection[str] = (),
    author: Author,
    now_s: float,
) -> bool:
    """Keep `values` in the prefix handle of a prefix; True if that changes anything.

    A value takes the place of one with its type, if the type is among `instead_of`, or of one
    with its index otherwise; what else has such a type is removed. What is new gets its index or
    the next free one. All other values stay as they are.

    A crash in the middle leaves a record that still has what was to be removed; the second attempt
    ends it.

    Raises:
        ConflictError: if nothing may be written there now.
        RegistryUnavailableError: if PostgreSQL does not answer.
    """
    handle = handle_of(prefix)
    types = {fold(type_) for type_ in instead_of}
    for _ in range(_TRIES_MAX):
        present = _values(await records.fetch(handle.key))
        placed, gone = _placed(values, present or (), types)
        if present is not None and not gone and _has(present, placed):
            return False
        if present is None:
            done = await records.put(handle, placed, author, now_s, overwrite=False)
        else:
            done = await records.put_values(handle, placed, author, now_s)
            if gone and isinstance(done, Written):
                done = await records.remove_values(handle, gone, author, now_s)
        if isinstance(done, Written):
            return True
        if done.code not in _GONE:
            raise _refused(prefix, done)
    raise ConflictError(f"{handle.text} is changed by others all the time", "try again")


async def keep_admin(
    records: PostgresRecords, prefix: str, key: HandleValue, *, author: Author, now_s: float
) -> bool:
    """Let whoever has `key` administer a prefix in every way; True if that changes anything.

    `key` is a value HS_SECKEY or HS_PUBKEY; it is kept in the prefix handle, beside the HS_ADMIN
    value that names it there, and takes the place of one of its kind at its index.

    Raises as `keep_values`; ConflictError also if something else has that index.
    """
    handle = handle_of(prefix)
    present = _values(await records.fetch(handle.key)) or ()
    for value in present:
        if value.index == key.index and fold(value.type) != fold(key.type):
            raise ConflictError(
                f"{handle.text} has a value {value.type} at index {key.index}",
                "give another --index",
            )
    admin = AdminRecord(handle.text, key.index)
    same = (value.index for value in present if _is_admin_of(value, admin))
    taken = {key.index, *(value.index for value in present)}
    free = (index for index in count(_ADMIN_INDEX) if index not in taken)
    index = next(same, None) or next(free)
    values = (HandleValue(index, "HS_ADMIN", admin.to_wire()), key)
    return await keep_values(records, prefix, values, author=author, now_s=now_s)


def _is_admin_of(value: HandleValue, admin: AdminRecord) -> bool:
    """True for the HS_ADMIN value of the same key, whatever it allows."""
    if fold(value.type) != "HS_ADMIN":
        return False
    try:
        found = AdminRecord.from_wire(value.data)
    except InvalidValueError:
        return False
    return found.index == admin.index and fold(found.handle) == fold(admin.handle)


def _values(record: Record | None) -> tuple[HandleValue, ...] | None:
    return None if record is None or record.deleted else record.values


def _placed(
    values: Iterable[HandleValue], present: Sequence[HandleValue], types: Collection[str]
) -> tuple[list[HandleValue], list[int]]:
    """`values` with the indexes that they get, and the indexes of what is to go."""
    old = [value for value in present if fold(value.type) in types]
    taken = {value.index for value in present if fold(value.type) not in types}
    placed: list[HandleValue] = []
    for value in values:
        same = [one.index for one in old if fold(one.type) == fold(value.type)]
        index = next((one for one in same if one not in taken), value.index)
        if fold(value.type) in types and index in taken:
            index = next(one for one in count(value.index) if one not in taken)
        taken.add(index)
        placed.append(replace(value, index=index))
    indexes = {value.index for value in placed}
    return placed, [value.index for value in old if value.index not in indexes]


def _has(present: Iterable[HandleValue], placed: Iterable[HandleValue]) -> bool:
    """True if `placed` are there already, whenever they were written."""
    kept = {value.index: replace(value, timestamp_s=0) for value in present}
    return all(kept.get(value.index) == replace(value, timestamp_s=0) for value in placed)


def _refused(prefix: str, refused: Refused) -> RefusalError:
    reason = refused.message or refused.code.name.lower().replace("_", " ")
    return ConflictError(f"{prefix}: {reason}", "look at `idnode prefix list`")
