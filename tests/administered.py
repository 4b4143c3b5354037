"""A prefix with administrators: who may do what is written in its records."""

from collections.abc import Sequence

from node.administrators import Administrators
from node.identity import Identity
from node.permission import ALL
from registry.database import Database
from registry.records import PostgresRecords, Written
from resolver.identifier import Identifier, from_text
from resolver.prefix_directory import PrefixDirectory, PrefixState
from resolver.record import ADMIN_READ, ADMIN_WRITE, HandleValue, Reference
from resolver.wire import AdminRecord, references_to_wire
from tests.resolving_worker import AUTHOR, PREFIX

NOW_S = 1_800_000_000.0
SECRET = b"secret"
PRIVATE = ADMIN_READ | ADMIN_WRITE
KEYS = f"{PREFIX}/ADMIN"
# Everything below the prefix; nothing at all; the operator's own.
OWNER = Identity(KEYS, 300)
STRANGER = Identity(KEYS, 399)
SERVER_ADMIN = Identity(f"{PREFIX}/OPERATOR", 300)
PREFIX_HANDLE = from_text(f"0.NA/{PREFIX}")


async def add_prefix(database: Database, prefix: str = PREFIX, mode: str = "hosted") -> None:
    """Enter an enterprise, and allot it a prefix."""
    async with database.connection() as connection:
        await connection.execute(
            "WITH e AS (INSERT INTO enterprise (name, credit_code, division, country)"
            " VALUES ('Test', $1, '450200', 'CN') RETURNING id)"
            " INSERT INTO prefix (prefix, key, enterprise_id, mode) SELECT $1, $1, id, $2 FROM e",
            prefix,
            mode,
        )


def admin(identity: Identity, permissions: int = ALL, index: int = 100) -> HandleValue:
    """An HS_ADMIN value that names `identity`."""
    record = AdminRecord(identity.handle, identity.index, int(permissions))
    return HandleValue(index, "HS_ADMIN", record.to_wire())


def secret(data: bytes = SECRET, index: int = 300) -> HandleValue:
    """An HS_SECKEY value that nobody may read."""
    return HandleValue(index, "HS_SECKEY", data, permissions=PRIVATE)


def group(members: Sequence[Identity], index: int = 200) -> HandleValue:
    """An HS_VLIST value."""
    references = [Reference(one.handle, one.index) for one in members]
    return HandleValue(index, "HS_VLIST", references_to_wire(references))


def url(text: str = "http://a.example/", index: int = 1) -> HandleValue:
    """A value as anybody registers it."""
    return HandleValue(index, "URL", text.encode())


def hosted(*more: str) -> PrefixDirectory:
    """A table with the prefix of these tests, and `more`."""
    made = PrefixDirectory()
    made.replace([PrefixState(key) for key in (PREFIX, *more)])
    return made


async def put(records: PostgresRecords, identifier: Identifier, *values: HandleValue) -> int:
    """Write a record as it is, past all administrators; its version."""
    written = await records.put(identifier, values, AUTHOR, NOW_S)
    assert isinstance(written, Written), written
    return written.record.version


async def entrust(records: PostgresRecords, *admins: HandleValue) -> None:
    """Write the prefix handle, with OWNER as its administrator unless others are given."""
    await put(records, PREFIX_HANDLE, *(admins or (admin(OWNER),)))


def administrators(records: PostgresRecords, *more_prefixes: str) -> Administrators:
    """Administrators of a node that hosts the prefix of these tests, and more."""
    return Administrators(records, hosted(*more_prefixes), [SERVER_ADMIN])
