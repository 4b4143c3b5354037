"""One worker that administers for identities, with everything around it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from node.administration import Administration, Done
from node.administrators import Administrators, Rights
from node.announcer import Announcer
from node.identity import Identity
from registry.database import Database
from registry.records import PostgresRecords, Refused
from resolver.hot import Hot
from resolver.hot_redis import RedisCache
from resolver.identifier import Identifier
from resolver.prefix_directory import PrefixDirectory
from resolver.record import (
    HandleValue,
    Record,
)
from resolver.resolve import Resolver
from resolver.response_code import ResponseCode
from tests.administered import (
    NOW_S,
    SERVER_ADMIN,
    add_prefix,
    hosted,
    url,
)
from tests.resolving_worker import PREFIX, name

INVALID_ADMIN = Refused(ResponseCode.INVALID_ADMIN)
INSUFFICIENT = Refused(ResponseCode.INSUFFICIENT_PERMISSIONS)
NOT_FOUND = Refused(ResponseCode.HANDLE_NOT_FOUND)
VALUES_NOT_FOUND = Refused(ResponseCode.VALUES_NOT_FOUND)
EXISTS = Refused(ResponseCode.HANDLE_ALREADY_EXISTS)
NOT_HERE = Refused(ResponseCode.SERVER_NOT_RESPONSIBLE, "That prefix doesn't live here")
BUSY = Refused(ResponseCode.SERVER_TOO_BUSY, "The administrators are being changed")
A = name("A")
Write = Callable[[Identity], Awaitable[Done | Refused]]


class Meddled(Administrators):
    """Administrators during whose looking up something happens, so many times."""

    def __init__(self, records: PostgresRecords, directory: PrefixDirectory) -> None:
        super().__init__(records, directory, [SERVER_ADMIN])
        self.meddle: Callable[[int], Awaitable[object]] | None = None
        self.looked_up = 0

    async def rights(
        self, identity: Identity, identifier: Identifier, record: Record | None
    ) -> Rights:
        found = await super().rights(identity, identifier, record)
        await self._meddle()
        return found

    async def rights_above(
        self, identity: Identity, identifier: Identifier, permission: int
    ) -> Rights:
        found = await super().rights_above(identity, identifier, permission)
        await self._meddle()
        return found

    async def _meddle(self) -> None:
        self.looked_up += 1
        if self.meddle is not None:
            await self.meddle(self.looked_up)


@dataclass(frozen=True)
class Office:
    """One worker's administration with everything around it."""

    records: PostgresRecords
    directory: PrefixDirectory
    administrators: Meddled
    administration: Administration

    async def held(self, identifier: Identifier = A) -> tuple[HandleValue, ...]:
        """The values of a record, as PostgreSQL has them."""
        record = await self.records.fetch(identifier.key)
        assert record is not None
        assert not record.deleted
        return record.values

    async def create(
        self,
        identity: Identity,
        identifier: Identifier,
        *values: HandleValue,
        overwrite: bool = False,
        mint: bool = False,
    ) -> Done | Refused:
        return await self.administration.create(
            identity, identifier, values, overwrite=overwrite, mint=mint, now_s=NOW_S
        )

    async def add(
        self, identity: Identity, *values: HandleValue, overwrite: bool = False
    ) -> Done | Refused:
        return await self.administration.add_values(
            identity, A, values, overwrite=overwrite, now_s=NOW_S
        )

    async def modify(self, identity: Identity, *values: HandleValue) -> Done | Refused:
        return await self.administration.modify_values(identity, A, values, now_s=NOW_S)

    async def remove(self, identity: Identity, *indexes: int) -> Done | Refused:
        return await self.administration.remove_values(identity, A, indexes, now_s=NOW_S)

    async def delete(self, identity: Identity, identifier: Identifier = A) -> Done | Refused:
        return await self.administration.delete(identity, identifier, now_s=NOW_S)

    def every_write(self, identifier: Identifier) -> list[Write]:
        """Each operation on an identifier, all with values or indexes 1."""
        administration = self.administration
        values = (url(),)
        return [
            lambda one: self.create(one, identifier, *values, overwrite=True),
            lambda one: administration.delete(one, identifier, now_s=NOW_S),
            lambda one: administration.add_values(one, identifier, values, now_s=NOW_S),
            lambda one: administration.modify_values(one, identifier, values, now_s=NOW_S),
            lambda one: administration.remove_values(one, identifier, [1], now_s=NOW_S),
        ]


def open_office(database: Database, cache: RedisCache) -> Office:
    """An office on a database, whose node hosts the prefix of these tests and two below it."""
    records, table = PostgresRecords(database), hosted(f"{PREFIX}.7", f"{PREFIX}.8")
    announcer = Announcer(database, cache, Resolver(records, cache, table, Hot()), _nothing)
    judge = Meddled(records, table)
    administration = Administration(records, judge, announcer, table, database, door="native")
    return Office(records, table, judge, administration)


@asynccontextmanager
async def office_on(database: Database, redis_url: str) -> AsyncIterator[Office]:
    """An office on a database with one enterprise's prefix, and on a cache that is away."""
    await add_prefix(database)
    # Nobody listens at this cache: it counts as away, and nothing waits for it.
    cache = RedisCache(redis_url)
    try:
        yield open_office(database, cache)
    finally:
        await cache.close()


def _nothing() -> None:
    pass


def done(result: Done | Refused) -> Done:
    """What was done; fails if it was refused."""
    assert isinstance(result, Done), result
    return result
