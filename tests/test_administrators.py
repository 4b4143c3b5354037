"""Administrators: which keys prove an identity, and which HS_ADMIN values let it do what."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from node.administrators import (
    GROUP_DEPTH_MAX,
    GROUPS_READ_MAX,
    KEYS_TRIED_MAX,
    MEMBERS_MAX,
    Administrators,
    admin_data,
)
from node.identity import Identity
from node.permission import ALL, Permission
from registry.database import Database
from registry.records import PostgresRecords
from resolver.errors import RegistryUnavailableError
from resolver.identifier import Identifier, from_text
from resolver.prefix_directory import PrefixDirectory, PrefixState
from resolver.record import HandleValue, Record
from resolver.response_code import ResponseCode
from resolver.wire import (
    AdminRecord,
    ChallengeAnswer,
    DigestAlgorithm,
    DigestAnswer,
    Opcode,
    Pbkdf2Answer,
    ResolutionResponse,
    RsaPublicKey,
    SignatureAnswer,
    request_body,
    response_body,
)
from resolver.wire import Challenge as WireChallenge
from tests.administered import (
    KEYS,
    NOW_S,
    OWNER,
    PREFIX_HANDLE,
    PRIVATE,
    SECRET,
    SERVER_ADMIN,
    STRANGER,
    add_prefix,
    admin,
    administrators,
    entrust,
    group,
    hosted,
    put,
    secret,
    url,
)
from tests.recorded_native import captured
from tests.resolving_worker import AUTHOR, PREFIX, name

INVALID_ADMIN = ResponseCode.INVALID_ADMIN
INSUFFICIENT = ResponseCode.INSUFFICIENT_PERMISSIONS
CHALLENGE = bytes(16) + hashlib.sha256(b"request").digest()
SALT = b"0123456789abcdef"
RSA = rsa.generate_private_key(65_537, 2_048)
ED25519 = ed25519.Ed25519PrivateKey.generate()


@pytest.fixture
async def records(database: Database) -> PostgresRecords:
    await add_prefix(database)
    return PostgresRecords(database)


@pytest.fixture
def judge(records: PostgresRecords) -> Administrators:
    return administrators(records)


def rsa_key(index: int = 301) -> HandleValue:
    numbers = RSA.public_key().public_numbers()
    return HandleValue(index, "HS_PUBKEY", RsaPublicKey(numbers.e, numbers.n).to_wire())


def ed25519_key(index: int) -> HandleValue:
    number = ED25519.public_key().public_bytes_raw()
    name_ = b"ED25519_PUB_KEY"
    data = len(name_).to_bytes(4, "big") + name_ + b"\x00\x00" + b"\x00\x00\x00\x20" + number
    return HandleValue(index, "HS_PUBKEY", data)


def by_secret(data: bytes = SECRET, iterations: int = 1_000) -> bytes:
    return Pbkdf2Answer.of(data, CHALLENGE, SALT, iterations=iterations).to_wire()


def by_rsa(challenge: bytes = CHALLENGE) -> bytes:
    signature = RSA.sign(challenge, padding.PKCS1v15(), hashes.SHA256())
    return SignatureAnswer("SHA-256", signature).to_wire()


async def with_keys(records: PostgresRecords, *values: HandleValue) -> None:
    await put(records, from_text(KEYS), *values)


async def test_a_secret_key_proves_the_identity_in_each_form_of_answer(
    records: PostgresRecords, judge: Administrators
) -> None:
    await with_keys(records, secret())
    assert await judge.authenticate(OWNER, "HS_SECKEY", by_secret(), CHALLENGE) == OWNER
    for algorithm in DigestAlgorithm:
        answer = DigestAnswer.of(SECRET, CHALLENGE, algorithm).to_wire()
        assert await judge.authenticate(OWNER, "HS_SECKEY", answer, CHALLENGE) == OWNER
    assert await judge.authenticate_secret(OWNER, SECRET) == OWNER


async def test_a_public_key_proves_the_identity(
    records: PostgresRecords, judge: Administrators
) -> None:
    await with_keys(records, secret(), rsa_key(), ed25519_key(302))
    identity = Identity(KEYS, 301)
    assert await judge.authenticate(identity, "HS_PUBKEY", by_rsa(), CHALLENGE) == identity
    ours = SignatureAnswer("Ed25519", ED25519.sign(CHALLENGE)).to_wire()
    identity = Identity(KEYS, 302)
    assert await judge.authenticate(identity, "HS_PUBKEY", ours, CHALLENGE) == identity


async def test_recorded_answers_of_the_field_prove_their_identity_and_wrong_ones_do_not(
    database: Database,
) -> None:
    await add_prefix(database, "88.102.5")
    records = PostgresRecords(database)
    # The secret is private: the recorded answers that show it are to its owner.
    await put(records, from_text("88.102.5/ADMIN"), *_recorded_keys(), secret(b"secret"))
    judge = administrators(records, "88.102.5")
    proven, wrong, challenge = Counter[str](), set[str](), b""
    for recorded in captured():
        if recorded.is_encrypted:
            continue
        message = recorded.message
        if message.response_code == ResponseCode.AUTHENTICATION_NEEDED:
            said, digest = response_body(message)
            assert isinstance(said, WireChallenge)
            assert digest is not None
            challenge = said.nonce + digest.digest
        elif message.is_request and message.opcode == Opcode.RESPONSE_TO_CHALLENGE:
            answer = request_body(message)
            assert isinstance(answer, ChallengeAnswer)
            kind, identity = (
                answer.authentication_type,
                Identity(answer.key.handle, answer.key.index),
            )
            if await judge.authenticate(identity, kind, answer.signed, challenge) == identity:
                proven[kind] += 1
            else:
                wrong.add(recorded.label)
    assert wrong == {"tcp-create-badsecret", "http-create-badsecret"}
    assert proven["HS_SECKEY"] > 20
    assert proven["HS_PUBKEY"] == 4


def _recorded_keys() -> list[HandleValue]:
    """The public keys of the recorded administrator, as a client resolved them."""
    (said, _), *_ = (
        response_body(one.message)
        for one in captured()
        if one.label == "tcp-admin-handle-public" and not one.from_client
    )
    assert isinstance(said, ResolutionResponse)
    return [value for value in said.values if value.type == "HS_PUBKEY"]


@pytest.mark.parametrize(
    ("auth_type", "signed", "challenge"),
    [
        ("HS_SECKEY", by_secret(b"Secret"), CHALLENGE),
        ("HS_SECKEY", by_secret(), CHALLENGE[:-1] + b"x"),
        ("HS_SECKEY", by_secret()[:-1], CHALLENGE),
        ("HS_SECKEY", b"", CHALLENGE),
        ("HS_SECKEY", by_rsa(), CHALLENGE),
        ("HS_PUBKEY", by_rsa(), CHALLENGE[:-1] + b"x"),
        ("HS_PUBKEY", by_rsa()[:-1], CHALLENGE),
        ("HS_PUBKEY", by_secret(), CHALLENGE),
        ("HS_CERT", by_secret(), CHALLENGE),
        ("", by_secret(), CHALLENGE),
    ],
)
@pytest.mark.parametrize("index", [0, 300, 301])
async def test_a_wrong_or_damaged_answer_proves_nobody(
    records: PostgresRecords,
    judge: Administrators,
    auth_type: str,
    signed: bytes,
    challenge: bytes,
    index: int,
) -> None:
    await with_keys(records, secret(), rsa_key())
    identity = Identity(KEYS, index)
    assert await judge.authenticate(identity, auth_type, signed, challenge) is None


async def test_index_0_stands_for_any_key_of_the_handle_and_the_one_that_matched_is_told(
    records: PostgresRecords, judge: Administrators
) -> None:
    await with_keys(records, secret(b"other", 299), secret(), rsa_key(), secret(b"third", 302))
    anyone = Identity(KEYS, 0)
    assert await judge.authenticate(anyone, "HS_SECKEY", by_secret(), CHALLENGE) == OWNER
    assert await judge.authenticate_secret(anyone, b"third") == Identity(KEYS, 302)
    assert await judge.authenticate(anyone, "HS_PUBKEY", by_rsa(), CHALLENGE) == Identity(KEYS, 301)
    assert await judge.authenticate_secret(anyone, b"fourth") is None
    assert await judge.keys(anyone, "HS_SECKEY") == [b"other", SECRET, b"third"]
    assert await judge.keys(OWNER, "HS_SECKEY") == [SECRET]
    assert await judge.keys(OWNER, "HS_PUBKEY") == []


async def test_only_so_many_keys_of_a_handle_are_tried(
    records: PostgresRecords, judge: Administrators
) -> None:
    await with_keys(records, *(secret(b"s%d" % n, n) for n in range(1, KEYS_TRIED_MAX + 2)))
    anyone, last = Identity(KEYS, 0), KEYS_TRIED_MAX
    assert await judge.authenticate_secret(anyone, b"s%d" % last) == Identity(KEYS, last)
    assert await judge.authenticate_secret(anyone, b"s%d" % (last + 1)) is None
    # By its index it is found nevertheless.
    beyond = Identity(KEYS, last + 1)
    assert await judge.authenticate_secret(beyond, b"s%d" % (last + 1)) == beyond


async def test_no_key_no_handle_and_a_deleted_handle_prove_nobody(
    records: PostgresRecords, judge: Administrators
) -> None:
    assert await judge.authenticate_secret(OWNER, SECRET) is None
    await with_keys(records, url(index=300), secret(index=301))
    assert await judge.authenticate_secret(OWNER, SECRET) is None
    await with_keys(records, secret())
    assert await judge.authenticate_secret(OWNER, SECRET) == OWNER
    await records.delete(from_text(KEYS), AUTHOR, NOW_S)
    assert await judge.authenticate_secret(OWNER, SECRET) is None


async def test_an_empty_secret_opens_nothing(
    records: PostgresRecords, judge: Administrators
) -> None:
    await with_keys(records, secret(b""))
    assert await judge.authenticate_secret(OWNER, b"") is None
    assert await judge.authenticate(OWNER, "HS_SECKEY", by_secret(b""), CHALLENGE) is None


@pytest.mark.parametrize("handle", ["", "x" * 300, "a\x00/b", "10.1000/ADMIN", "88.100"])
async def test_a_handle_that_cannot_be_or_lives_elsewhere_proves_nobody(
    judge: Administrators, handle: str
) -> None:
    assert await judge.authenticate_secret(Identity(handle, 300), SECRET) is None


async def test_keys_below_a_suspended_prefix_or_one_that_is_run_elsewhere_prove_nobody(
    records: PostgresRecords,
) -> None:
    await with_keys(records, secret())
    for state in (PrefixState(PREFIX, suspended=True), PrefixState(PREFIX, hosted=False)):
        table = PrefixDirectory()
        table.replace([state])
        assert await Administrators(records, table, []).authenticate_secret(OWNER, SECRET) is None


async def test_what_cannot_be_known_is_not_taken_for_a_wrong_key(
    records: PostgresRecords, database: Database
) -> None:
    not_loaded = Administrators(records, PrefixDirectory(), [])
    with pytest.raises(RegistryUnavailableError):
        await not_loaded.authenticate_secret(OWNER, SECRET)
    gone = Database("postgresql://127.0.0.1:1/nothing")
    with pytest.raises(RegistryUnavailableError):
        await administrators(PostgresRecords(gone)).authenticate_secret(OWNER, SECRET)
    with pytest.raises(RegistryUnavailableError):
        await administrators(PostgresRecords(gone)).refusal(
            OWNER, Permission.ADD_VALUE, name("A"), None
        )
    await gone.close()


async def record_of(
    records: PostgresRecords, *values: HandleValue, suffix: str = "A"
) -> tuple[Identifier, Record]:
    asked = name(suffix)
    await put(records, asked, *values)
    found = await records.fetch(asked.key)
    assert found is not None
    return asked, found


@pytest.mark.parametrize("bit", [*Permission])
async def test_each_permission_is_one_bit_and_no_other(
    records: PostgresRecords, judge: Administrators, bit: Permission
) -> None:
    alone, others = admin(OWNER, bit, 100), admin(STRANGER, ALL & ~bit, 101)
    await entrust(records, alone, others)
    asked, record = await record_of(records, alone, others)
    # To create and to list is up to the prefix handle, to derive prefixes up to the parent's.
    parent_needed = bit in (Permission.ADD_DERIVED_PREFIX, Permission.DELETE_DERIVED_PREFIX)
    if parent_needed:
        asked = from_text(f"0.NA/{PREFIX}.7")
    assert await judge.refusal(OWNER, bit, asked, record) is None
    assert await judge.refusal(STRANGER, bit, asked, record) == INSUFFICIENT
    assert await judge.refusal(Identity(KEYS, 1), bit, asked, record) == INVALID_ADMIN
    assert await judge.refusal(SERVER_ADMIN, bit, asked, record) is None


async def test_permissions_of_several_values_add_up(
    records: PostgresRecords, judge: Administrators
) -> None:
    asked, record = await record_of(
        records,
        admin(OWNER, Permission.ADD_VALUE, 100),
        admin(Identity(KEYS, 0), Permission.REMOVE_VALUE, 101),
    )
    both = Permission.ADD_VALUE | Permission.REMOVE_VALUE
    assert await judge.refusal(OWNER, both, asked, record) is None
    assert await judge.refusal(STRANGER, Permission.REMOVE_VALUE, asked, record) is None
    assert await judge.refusal(STRANGER, both, asked, record) == INSUFFICIENT


async def test_a_record_without_administrators_is_up_to_those_of_its_prefix_handle(
    records: PostgresRecords, judge: Administrators
) -> None:
    asked, record = await record_of(records, url())
    assert await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record) == INVALID_ADMIN
    await entrust(records)
    assert await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record) is None
    assert await judge.refusal(OWNER, Permission.ADD_HANDLE, name("new"), None) is None
    # One that has them is up to nobody else, whatever the prefix handle says.
    asked, record = await record_of(records, admin(STRANGER))
    assert await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record) == INVALID_ADMIN
    assert await judge.refusal(OWNER, Permission.ADD_HANDLE, asked, record) is None
    await records.delete(PREFIX_HANDLE, AUTHOR, NOW_S)
    assert await judge.refusal(OWNER, Permission.ADD_HANDLE, name("new"), None) == INVALID_ADMIN


async def test_a_record_that_is_not_given_is_read(
    records: PostgresRecords, judge: Administrators
) -> None:
    asked, _ = await record_of(records, admin(OWNER, Permission.READ_VALUE))
    assert await judge.refusal(OWNER, Permission.READ_VALUE, asked) is None
    assert await judge.refusal(OWNER, Permission.MODIFY_VALUE, asked) == INSUFFICIENT


async def test_a_damaged_administrator_names_nobody_and_is_one_nevertheless(
    records: PostgresRecords, judge: Administrators
) -> None:
    await entrust(records)
    whole = admin(OWNER)
    damaged = HandleValue(100, "HS_ADMIN", whole.data[:-1])
    asked, record = await record_of(records, damaged, url())
    assert admin_data(record) == (damaged.data,)
    assert await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record) == INVALID_ADMIN
    assert await judge.refusal(SERVER_ADMIN, Permission.ADD_VALUE, asked, record) is None


async def test_types_are_compared_without_ascii_case_and_the_legacy_form_counts(
    records: PostgresRecords, judge: Administrators
) -> None:
    legacy = AdminRecord(KEYS.lower(), 300, ALL, legacy_length=True).to_wire()
    asked, record = await record_of(records, HandleValue(100, "hs_Admin", legacy))
    assert await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record) is None
    longer = HandleValue(100, "HS_ADMIN.old", legacy)
    asked, record = await record_of(records, longer)
    assert admin_data(record) == ()


async def test_a_prefix_handle_decides_for_itself_and_its_parent_for_those_derived(
    records: PostgresRecords, judge: Administrators
) -> None:
    await entrust(records, admin(OWNER, Permission.ADD_DERIVED_PREFIX))
    derive = Permission.ADD_DERIVED_PREFIX
    assert await judge.refusal(OWNER, derive, from_text(f"0.NA/{PREFIX}.7")) is None
    # As a slashless name, too.
    assert await judge.refusal(OWNER, derive, from_text(f"{PREFIX}.7")) is None
    for elsewhere in (f"0.NA/{PREFIX}.7.1", "0.NA/88", f"0.NA/0.NA/{PREFIX}.7", PREFIX):
        assert await judge.refusal(OWNER, derive, from_text(elsewhere)) == INVALID_ADMIN
    # Listing below the prefix is asked of its own prefix handle.
    assert await judge.refusal(OWNER, Permission.LIST_HANDLES, PREFIX_HANDLE) == INSUFFICIENT


async def test_keys_in_a_prefix_handle_prove_an_identity_in_either_spelling(
    records: PostgresRecords, judge: Administrators
) -> None:
    await entrust(records, admin(Identity(f"0.NA/{PREFIX}", 300)), secret())
    for handle in (PREFIX, f"0.NA/{PREFIX}", f"0.na/{PREFIX}"):
        identity = Identity(handle, 300)
        assert await judge.authenticate_secret(identity, SECRET) == identity
        assert await judge.refusal(identity, Permission.ADD_HANDLE, name("A")) is None


async def groups(records: PostgresRecords, chain: Sequence[str], last: Identity) -> None:
    """Each group of the chain has the next one as its member, the last one `last`."""
    for n, suffix in enumerate(chain):
        member = Identity(f"{PREFIX}/{chain[n + 1]}", 200) if n + 1 < len(chain) else last
        await put(records, name(suffix), group([STRANGER, member]))


@pytest.mark.parametrize("depth", [1, 2, GROUP_DEPTH_MAX, GROUP_DEPTH_MAX + 1])
async def test_groups_are_followed_into_groups_so_deep_and_no_deeper(
    records: PostgresRecords, judge: Administrators, depth: int
) -> None:
    await groups(records, [f"G{n}" for n in range(depth)], OWNER)
    first = Identity(f"{PREFIX}/G0", 200)
    asked, record = await record_of(records, admin(first, Permission.ADD_VALUE))
    expected = None if depth <= GROUP_DEPTH_MAX else INVALID_ADMIN
    assert await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record) == expected
    assert await judge.refusal(STRANGER, Permission.REMOVE_VALUE, asked, record) == INSUFFICIENT


async def test_groups_that_hold_each_other_end(
    records: PostgresRecords, judge: Administrators
) -> None:
    one, other = Identity(f"{PREFIX}/G0", 200), Identity(f"{PREFIX}/G1", 0)
    await put(records, name("G0"), group([other, one]))
    await put(records, name("G1"), group([one]), HandleValue(201, "HS_VLIST", b"damaged"))
    asked, record = await record_of(records, admin(one))
    assert await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record) == INVALID_ADMIN
    await put(records, name("G1"), group([one]), group([OWNER], 202))
    assert await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record) is None


async def test_each_way_to_a_group_gives_its_own_permissions_and_no_others(
    records: PostgresRecords, judge: Administrators
) -> None:
    inner, outer = Identity(f"{PREFIX}/IN", 200), Identity(f"{PREFIX}/OUT", 200)
    await put(records, name("IN"), group([OWNER]))
    await put(records, name("OUT"), group([inner, STRANGER]))
    asked, record = await record_of(
        records,
        admin(inner, Permission.ADD_VALUE, 100),
        admin(outer, Permission.REMOVE_VALUE, 101),
    )
    both = Permission.ADD_VALUE | Permission.REMOVE_VALUE
    assert await judge.refusal(OWNER, both, asked, record) is None
    assert await judge.refusal(STRANGER, Permission.REMOVE_VALUE, asked, record) is None
    assert await judge.refusal(STRANGER, Permission.ADD_VALUE, asked, record) == INSUFFICIENT
    assert await judge.refusal(OWNER, Permission.READ_VALUE, asked, record) == INSUFFICIENT


async def test_a_value_that_is_no_group_has_no_members(
    records: PostgresRecords, judge: Administrators
) -> None:
    listed = group([OWNER])
    await put(records, name("G"), HandleValue(200, "URL", listed.data), group([OWNER], 201))
    asked, record = await record_of(records, admin(Identity(f"{PREFIX}/G", 200)))
    assert await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record) == INVALID_ADMIN


async def test_groups_that_live_elsewhere_or_are_deleted_have_no_members(
    records: PostgresRecords, judge: Administrators
) -> None:
    await put(records, name("G"), group([OWNER]))
    asked, record = await record_of(
        records, admin(Identity(f"{PREFIX}/G", 200)), admin(Identity("10.1000/G", 200), ALL, 101)
    )
    assert await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record) is None
    await records.delete(name("G"), AUTHOR, NOW_S)
    assert await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record) == INVALID_ADMIN


@pytest.mark.parametrize(("number", "is_found"), [(GROUPS_READ_MAX, True), (None, False)])
async def test_only_so_many_groups_are_read_for_one_decision(
    records: PostgresRecords, judge: Administrators, number: int | None, is_found: bool
) -> None:
    number = number or GROUPS_READ_MAX + 1
    named = [Identity(f"{PREFIX}/G{n}", 200) for n in range(number)]
    await put(records, name(f"G{number - 1}"), group([OWNER]))
    asked, record = await record_of(
        records, *(admin(one, ALL, 100 + n) for n, one in enumerate(named))
    )
    refused = await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record)
    assert refused == (None if is_found else INVALID_ADMIN)


@pytest.mark.parametrize(("spare", "is_found"), [(0, True), (1, False)])
async def test_only_so_many_members_are_looked_at_for_one_decision(
    records: PostgresRecords, judge: Administrators, spare: int, is_found: bool
) -> None:
    # The HS_ADMIN value itself is the first one that is looked at.
    before = MEMBERS_MAX - 2 + spare
    values, index = [], 200
    while before:
        number = min(before, 1_000)
        values.append(group([STRANGER] * number, index))
        before, index = before - number, index + 1
    await put(records, name("G"), *values, group([OWNER], index))
    asked, record = await record_of(records, admin(Identity(f"{PREFIX}/G", 0)))
    refused = await judge.refusal(OWNER, Permission.ADD_VALUE, asked, record)
    assert refused == (None if is_found else INVALID_ADMIN)


async def test_server_administrators_may_do_everything_and_nobody_else_is_one(
    records: PostgresRecords,
) -> None:
    judge = Administrators(records, hosted(), [Identity(KEYS, 0), SERVER_ADMIN])
    asked, record = await record_of(records, admin(STRANGER, 0))
    for identity in (OWNER, STRANGER, SERVER_ADMIN):
        assert judge.is_server_admin(identity)
        assert await judge.refusal(identity, ALL, asked, record) is None
    for identity in (Identity(f"{PREFIX}/OPERATOR", 301), Identity(f"{PREFIX}/OPERATOR", 0)):
        assert not judge.is_server_admin(identity)
        assert await judge.refusal(identity, Permission.READ_VALUE, asked, record) == INVALID_ADMIN


async def test_rights_tell_what_they_rest_on(
    records: PostgresRecords, judge: Administrators
) -> None:
    await entrust(records, admin(Identity(f"{PREFIX}/G", 200)))
    version = await put(records, name("G"), group([OWNER, Identity(f"{PREFIX}/none", 200)]))
    asked, record = await record_of(records, url())
    rights = await judge.rights(OWNER, asked, record)
    above = await records.fetch(PREFIX_HANDLE.key)
    assert above is not None
    assert rights.versions == {
        PREFIX_HANDLE.key: above.version,
        name("G").key: version,
        name("NONE").key: 0,
        from_text(KEYS).key: 0,
    }
    assert rights.permissions == ALL


async def test_private_values_stay_private_to_who_may_read(
    records: PostgresRecords, judge: Administrators
) -> None:
    hidden = HandleValue(5, "COST", b"12", permissions=PRIVATE)
    asked, record = await record_of(
        records, hidden, admin(OWNER, Permission.READ_VALUE), admin(STRANGER, 0, 101)
    )
    assert await judge.refusal(OWNER, Permission.READ_VALUE, asked, record) is None
    assert await judge.refusal(STRANGER, Permission.READ_VALUE, asked, record) == INSUFFICIENT
