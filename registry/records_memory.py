"""Records in memory: the twin of PostgreSQL, with the same rules of versions."""

from collections.abc import Collection, Iterable, Sequence

from registry.records import Author, Refused, Written, merged_values
from resolver.errors import RegistryUnavailableError
from resolver.identifier import Identifier
from resolver.record import HandleValue, Record, values_to_wire
from resolver.response_code import ResponseCode


class MemoryRecords:
    """Implements the resolver's RecordSource, and the writes, below `prefix_keys`.

    `is_up` is set by whoever owns it.
    """

    def __init__(self, prefix_keys: Collection[str]) -> None:
        self._prefix_keys = prefix_keys
        self._records: dict[str, Record] = {}
        self._stored: dict[str, bytes] = {}
        self._version = 0
        self.is_up = True

    async def fetch(self, key: str) -> Record | None:
        """See PostgresRecords."""
        return (await self.fetch_many([key])).get(key)

    async def fetch_many(self, keys: Sequence[str]) -> dict[str, Record]:
        """See PostgresRecords."""
        self._answer_or_fail()
        return {key: self._records[key] for key in keys if key in self._records}

    async def put(
        self,
        identifier: Identifier,
        values: Sequence[HandleValue],
        author: Author,
        now_s: float,
        *,
        overwrite: bool = True,
    ) -> Written | Refused:
        """See PostgresRecords."""
        present, refused = self._present(identifier)
        if refused is not None:
            return refused
        if present is None:
            return Written(self._write(identifier.text, identifier.key, values, now_s), True)
        if not overwrite:
            return Refused(ResponseCode.HANDLE_ALREADY_EXISTS)
        is_same = self._stored[identifier.key] == values_to_wire(values)
        if is_same and present.handle == identifier.text:
            return Written(present, created=False, changed=False)
        return Written(self._write(identifier.text, identifier.key, values, now_s), False)

    async def put_values(
        self,
        identifier: Identifier,
        values: Sequence[HandleValue],
        author: Author,
        now_s: float,
        *,
        overwrite: bool = True,
    ) -> Written | Refused:
        """See PostgresRecords."""
        present, refused = self._present(identifier)
        if present is None:
            return refused or Refused(ResponseCode.HANDLE_NOT_FOUND)
        taken = {value.index for value in present.values}
        conflicts = [value.index for value in values if value.index in taken]
        if conflicts and not overwrite:
            return Refused(ResponseCode.VALUE_ALREADY_EXISTS, f"Index conflict for {conflicts[0]}")
        merged = merged_values(present, values)
        if isinstance(merged, Refused):
            return merged
        record = self._write(present.handle, identifier.key, merged, now_s)
        return Written(record, created=not conflicts)

    async def modify_values(
        self,
        identifier: Identifier,
        values: Sequence[HandleValue],
        author: Author,
        now_s: float,
    ) -> Written | Refused:
        """See PostgresRecords."""
        present, refused = self._present(identifier)
        if present is None:
            return refused or Refused(ResponseCode.HANDLE_NOT_FOUND)
        if not {one.index for one in values} <= {one.index for one in present.values}:
            return Refused(ResponseCode.VALUES_NOT_FOUND)
        merged = merged_values(present, values)
        if isinstance(merged, Refused):
            return merged
        return Written(self._write(present.handle, identifier.key, merged, now_s), created=False)

    async def remove_values(
        self, identifier: Identifier, indexes: Iterable[int], author: Author, now_s: float
    ) -> Written | Refused:
        """See PostgresRecords."""
        gone = set(indexes)
        present, refused = self._present(identifier)
        if present is None:
            return refused or Refused(ResponseCode.HANDLE_NOT_FOUND)
        if not gone <= {value.index for value in present.values}:
            return Refused(ResponseCode.VALUES_NOT_FOUND)
        kept = [value for value in present.values if value.index not in gone]
        return Written(self._write(present.handle, identifier.key, kept, now_s), created=False)

    async def delete(
        self, identifier: Identifier, author: Author, now_s: float
    ) -> Written | Refused:
        """See PostgresRecords."""
        present, refused = self._present(identifier)
        if present is None:
            return refused or Refused(ResponseCode.HANDLE_NOT_FOUND)
        record = self._write(present.handle, identifier.key, (), now_s, deleted=True)
        return Written(record, created=False)

    def _present(self, identifier: Identifier) -> tuple[Record | None, Refused | None]:
        self._answer_or_fail()
        if identifier.prefix_key not in self._prefix_keys:
            message = "That prefix doesn't live here"
            return None, Refused(ResponseCode.SERVER_NOT_RESPONSIBLE, message)
        record = self._records.get(identifier.key)
        return (None if record is None or record.deleted else record), None

    def _write(
        self,
        handle: str,
        key: str,
        values: Iterable[HandleValue],
        now_s: float,
        *,
        deleted: bool = False,
    ) -> Record:
        self._version += 1
        self._stored[key] = data = values_to_wire(values)
        self._records[key] = Record(handle, self._version, data, int(now_s), deleted)
        return self._records[key]

    def _answer_or_fail(self) -> None:
        if not self.is_up:
            raise RegistryUnavailableError("the registry is away")
