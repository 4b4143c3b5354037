"""Keys: shown once, found by their whole text, revoked for good."""

import hashlib
from collections.abc import AsyncIterator

import pytest
from stdnum.cn import uscc

from registry import api_keys, applications, enterprises, prefixes
from registry.database import Database
from registry.records import Author
from registry.refusal import ConflictError, InvalidEntryError, UnknownEntryError

AUTHOR = Author("cli:test", "cli")
CODE = "91450200000000001" + uscc.calc_check_digit("91450200000000001")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    await enterprises.add(
        opened, name="柳州样品厂", credit_code=CODE, division="450200", author=AUTHOR
    )
    yield opened
    await opened.close()


async def _find(database: Database, text: str) -> api_keys.KeyOwner | None:
    async with database.connection() as connection:
        return await api_keys.find(connection, text)


async def _announced(database: Database) -> list[str]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT key FROM outbox WHERE topic = 'keys' ORDER BY id")
    return [row["key"] for row in rows]


async def test_an_enterprise_key_knows_the_prefixes_of_its_enterprise(database: Database) -> None:
    for prefix in ("88.608.2", "88.608.1"):
        await prefixes.allot(
            database, prefix=prefix, credit_code=CODE, node_prefix=None, author=AUTHOR
        )
    text, key = await api_keys.create(database, "enterprise", CODE, author=AUTHOR)
    owner = await _find(database, text)
    assert owner is not None
    assert (owner.key_id, owner.role, owner.application_id) == (key.id, "enterprise", None)
    assert owner.prefixes == ("88.608.1", "88.608.2")
    assert owner.enterprise_id is not None
    assert key.credit_code == CODE
    assert await _announced(database) == [key.id]


@pytest.mark.parametrize("sandbox", [False, True])
async def test_an_application_key_knows_whether_it_is_a_sandbox(
    database: Database, sandbox: bool
) -> None:
    application, _ = await applications.add(
        database,
        name="追溯平台",
        kind="traceability",
        owner="广州样品公司",
        division="440100",
        sandbox=sandbox,
        author=AUTHOR,
    )
    text, key = await api_keys.create(database, "application", application.id, author=AUTHOR)
    assert await _find(database, text) == api_keys.KeyOwner(
        key.id, "application", application.id, sandbox
    )


async def test_only_the_digest_of_a_key_is_kept(database: Database) -> None:
    text, key = await api_keys.create(database, "operator", None, author=AUTHOR)
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT * FROM api_key")
        changes = await connection.fetch("SELECT detail FROM change")
    assert row is not None
    assert row["secret_sha256"] == hashlib.sha256(text.encode()).digest()
    secret = text.removeprefix(f"idn_{key.id}_")
    kept = [str(value) for value in row.values()] + [change["detail"] for change in changes]
    assert not [value for value in kept if secret in value]


async def test_a_key_with_one_wrong_character_finds_nobody(database: Database) -> None:
    text, _ = await api_keys.create(database, "operator", None, author=AUTHOR)
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    assert await _find(database, wrong) is None
    assert await _find(database, text) is not None


@pytest.mark.parametrize(
    "text", ["", "idn_", "idn_0123456789ab_short", "idn_0123456789AB_" + "a" * 43, "键" * 60]
)
def test_what_has_not_the_form_of_a_key_is_not_looked_up(text: str) -> None:
    assert api_keys.parse_key(text) is None


def test_a_new_key_has_the_form_and_is_never_the_same() -> None:
    texts = {api_keys.new_key_text() for _ in range(100)}
    assert len(texts) == 100
    for text in texts:
        parsed = api_keys.parse_key(text)
        assert parsed is not None
        assert text.startswith(f"idn_{parsed[0]}_")
        assert parsed[1] == hashlib.sha256(text.encode()).digest()


async def test_a_revoked_key_finds_nobody_and_stays_listed(database: Database) -> None:
    text, key = await api_keys.create(database, "operator", None, author=AUTHOR)
    revoked, changed = await api_keys.revoke(database, key.id, author=AUTHOR)
    again, changed_again = await api_keys.revoke(database, key.id, author=AUTHOR)
    assert (changed, changed_again) == (True, False)
    assert revoked.is_revoked
    assert again == revoked
    assert await _find(database, text) is None
    assert [entry async for entry in api_keys.stream(database)] == [revoked]
    assert await _announced(database) == [key.id, key.id]


async def test_an_unknown_key_cannot_be_revoked(database: Database) -> None:
    with pytest.raises(UnknownEntryError, match="no key with this id"):
        await api_keys.revoke(database, "0123456789ab", author=AUTHOR)


@pytest.mark.parametrize(
    ("role", "owner", "reason"),
    [
        ("guest", None, "role 'guest' is not known"),
        ("operator", CODE, "operator has no owner"),
        ("enterprise", None, "enterprise needs an owner"),
    ],
)
async def test_a_role_and_an_owner_must_fit(
    database: Database, role: str, owner: str | None, reason: str
) -> None:
    with pytest.raises(InvalidEntryError, match=reason):
        await api_keys.create(database, role, owner, author=AUTHOR)


async def test_a_given_operator_key_is_entered_once(database: Database) -> None:
    text = api_keys.new_key_text()
    assert await api_keys.ensure_operator_key(database, text, author=AUTHOR)
    assert not await api_keys.ensure_operator_key(database, text, author=AUTHOR)
    owner = await _find(database, text)
    assert owner is not None
    assert owner.role == "operator"
    assert len(await _announced(database)) == 1


async def test_an_operator_key_that_is_malformed_revoked_or_not_an_operators_is_refused(
    database: Database,
) -> None:
    with pytest.raises(InvalidEntryError, match="does not have the form"):
        await api_keys.ensure_operator_key(database, "secret", author=AUTHOR)
    revoked, key = await api_keys.create(database, "operator", None, author=AUTHOR)
    await api_keys.revoke(database, key.id, author=AUTHOR)
    enterprise, _ = await api_keys.create(database, "enterprise", CODE, author=AUTHOR)
    for text in (revoked, enterprise):
        with pytest.raises(ConflictError, match="is revoked, or another key has its id"):
            await api_keys.ensure_operator_key(database, text, author=AUTHOR)
