"""`idnode prefix delegate` and `idnode prefix admin`: a prefix handle in one step."""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from node.node_key import NodeKey
from node.public_key_file import public_key_record
from registry.database import Database
from registry.records import Author, HistoryEntry, PostgresRecords
from resolver.errors import InvalidValueError
from resolver.identifier import from_text
from resolver.own_site import Reach, site_of
from resolver.record import HandleValue
from resolver.response_code import ResponseCode
from resolver.wire import AdminRecord, DsaPublicKey, Message, MessageStream, RsaPublicKey, SiteInfo
from tests.command_line import Ended, Idnode, command_line
from tests.conftest import free_port
from tests.tenant import credit_code

CODE = credit_code(1)
PREFIX = "88.608.7"
KEY = b"a public key"
THERE = site_of(Reach("192.0.2.7", 2641), KEY, 5)
AUTHOR = Author("test", "test")
# Long enough for any step of this machine.
PATIENCE_S = 20.0


class OtherNode:
    """A node elsewhere, which tells its site to whoever asks, in a thread of its own."""

    def __init__(self) -> None:
        self.site = THERE
        self.port = 0
        self._ready = threading.Event()
        self._end: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    def stop(self) -> None:
        self._end()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        self._end = lambda: loop.call_soon_threadsafe(ended.set)
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await ended.wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = MessageStream()
        while (whole := stream.take()) is None:
            stream.feed(await reader.read(65_536))
        request = Message.from_wire(whole)
        body, serial = self.site.to_wire(), self.site.serial
        reply = request.reply(ResponseCode.SUCCESS, body, site_serial=serial)
        writer.write(reply.to_wire())
        writer.close()


@pytest.fixture
def other() -> Iterator[OtherNode]:
    made = OtherNode()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def idnode(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    database_url: str,
) -> Idnode:
    """Run a command on a migrated database with one enterprise."""
    run_it = command_line(monkeypatch, capsys, tmp_path / "var")
    monkeypatch.setenv("IDNODE_POSTGRES_URL", database_url)

    words = ("--name", "柳州样品厂", "--credit-code", CODE, "--division", "450200")
    assert run_it("enterprise", "add", *words).code == 0
    return run_it


def delegated(idnode: Idnode, other: OtherNode, *more: str, prefix: str = PREFIX) -> Ended:
    return idnode("prefix", "delegate", prefix, "--enterprise", CODE, "--node", other.place, *more)


class Book:
    """The records behind the command line."""

    def __init__(self, url: str) -> None:
        self._url = url

    def values(self, text: str) -> dict[int, HandleValue]:
        """The values of a record, by index."""
        record = self._done(lambda records: records.fetch(from_text(text).key))
        return {value.index: value for value in record.values} if record else {}

    def types(self, text: str) -> dict[int, str]:
        return {index: value.type for index, value in self.values(text).items()}

    def put(self, text: str, *values: HandleValue) -> None:
        self._done(lambda records: records.put(from_text(text), values, AUTHOR, 1_800_000_000))

    def history(self, text: str) -> list[HistoryEntry]:
        found: list[HistoryEntry] = self._done(lambda one: one.history(from_text(text).key))
        return found

    def _done(self, work: Callable[[PostgresRecords], Any]) -> Any:
        async def act() -> Any:
            database = Database(self._url)
            try:
                return await work(PostgresRecords(database))
            finally:
                await database.close()

        return asyncio.run(act())


@pytest.fixture
def book(database_url: str) -> Book:
    return Book(database_url)


# delegate


def test_a_prefix_is_delegated_in_one_step(idnode: Idnode, other: OtherNode, book: Book) -> None:
    ended = delegated(idnode, other)
    assert ended.code == 0, ended.err
    said, key = ended.out.splitlines()
    assert said == f"{PREFIX} is delegated to the node of 柳州样品厂 (192.0.2.7)"
    digest = hashlib.sha256(KEY).hexdigest()
    assert (
        key == f"192.0.2.7 has not signed: ask its operator whether SHA-256 of its key is {digest}"
    )
    (listed,) = idnode("prefix", "list", "--json").document["prefixes"]
    assert (listed["prefix"], listed["mode"]) == (PREFIX, "self_run")
    assert book.types(PREFIX) == {1: "HS_SITE"}
    assert book.values(PREFIX)[1].data == THERE.to_wire()
    (entry,) = book.history(PREFIX)
    assert entry.actor.startswith("cli:")


def test_the_doctor_shows_the_key_that_two_operators_compare(
    idnode: Idnode, other: OtherNode, tmp_path: Path
) -> None:
    def shown() -> list[str]:
        checks = idnode("doctor", "--json").document["checks"]
        return [one["found"] for one in checks if one["check"] == "public key of the node"]

    folder = tmp_path / "var"
    assert shown() == [f"{folder / 'node.key'} does not exist"]
    folder.mkdir(exist_ok=True)
    key = NodeKey.kept(folder)
    other.site = site_of(Reach("192.0.2.7", 2641), key.public_key, 5)
    digest = hashlib.sha256(key.public_key).hexdigest()
    assert shown() == [f"SHA-256 {digest}"]
    assert digest in delegated(idnode, other).out
    (folder / "node.key").write_text("no key")
    assert "is damaged" in shown()[0]


def test_the_same_delegation_twice_changes_nothing(
    idnode: Idnode, other: OtherNode, book: Book
) -> None:
    first = delegated(idnode, other, "--for-derived", "--json").document
    again = delegated(idnode, other, "--for-derived", "--json").document
    assert (first["changed"], again["changed"]) == (True, False)
    assert first["site"]["servers"][0]["address"] == "192.0.2.7"
    assert "was already delegated" in delegated(idnode, other, "--for-derived").out
    assert book.types(PREFIX) == {1: "HS_SITE", 2: "HS_SITE.PREFIX"}
    assert len(book.history(PREFIX)) == 1


def test_a_node_that_moved_takes_the_place_of_what_was_there(
    idnode: Idnode, other: OtherNode, book: Book
) -> None:
    delegated(idnode, other, "--for-derived")
    other.site = site_of(Reach("192.0.2.8", 2641), b"", 6)
    assert delegated(idnode, other).code == 0
    assert book.types(PREFIX) == {1: "HS_SITE"}
    assert SiteInfo.from_wire(book.values(PREFIX)[1].data) == other.site


def test_other_values_of_the_prefix_handle_stay_and_a_service_goes(
    idnode: Idnode, other: OtherNode, book: Book
) -> None:
    idnode("prefix", "allot", PREFIX, "--enterprise", CODE, "--mode", "self_run")
    book.put(
        f"0.NA/{PREFIX}",
        HandleValue(1, "DESC", b"x"),
        HandleValue(3, "HS_SERV", b"88.608/SVC"),
        HandleValue(4, "HS_SITE", b"old"),
        HandleValue(5, "HS_SITE", b"older"),
        HandleValue(100, "HS_ADMIN", b"a"),
    )
    assert delegated(idnode, other, "--for-derived").code == 0
    assert book.types(PREFIX) == {1: "DESC", 2: "HS_SITE.PREFIX", 4: "HS_SITE", 100: "HS_ADMIN"}
    assert book.values(PREFIX)[4].data == THERE.to_wire()


def test_a_prefix_that_is_hosted_or_anothers_is_not_delegated(
    idnode: Idnode, other: OtherNode, book: Book
) -> None:
    idnode("prefix", "allot", PREFIX, "--enterprise", CODE)
    ended = delegated(idnode, other)
    assert ended.code == 1
    assert "is allotted as hosted, not self_run" in ended.err
    assert book.values(PREFIX) == {}


@pytest.mark.parametrize(
    ("node_prefix", "prefix", "is_delegated"),
    [
        ("88", "88.608", True),
        ("88", "88.608.7", True),
        ("88.608", "88.608.7", True),
        ("88.608", "88.608", False),
        ("88", "89.608", False),
        (None, "88.608", False),
        (None, "88.608.7", True),
    ],
)
def test_a_top_node_delegates_prefixes_of_two_numbers(
    idnode: Idnode,
    other: OtherNode,
    monkeypatch: pytest.MonkeyPatch,
    node_prefix: str | None,
    prefix: str,
    is_delegated: bool,
) -> None:
    if node_prefix is not None:
        monkeypatch.setenv("IDNODE_NODE_PREFIX", node_prefix)
    ended = delegated(idnode, other, prefix=prefix)
    assert (ended.code == 0) is is_delegated, ended.err
    hosted = idnode("prefix", "allot", "88.700", "--enterprise", CODE)
    assert "not of the form" in hosted.err


def test_a_node_that_does_not_answer_leaves_nothing_behind(idnode: Idnode, book: Book) -> None:
    place = f"127.0.0.1:{free_port()}"
    ended = idnode("prefix", "delegate", PREFIX, "--enterprise", CODE, "--node", place)
    assert ended.code == 4
    assert f"{place} did not tell its site" in ended.err
    assert ended.err.count("\n") == 1
    assert idnode("prefix", "list", "--json").document == {"prefixes": []}


@pytest.mark.parametrize(
    "reach", [Reach("0.0.0.0", 2641), Reach("::", 2641), Reach("192.0.2.7", None, 8000)]
)
def test_a_site_where_nobody_can_ask_is_not_kept(
    idnode: Idnode, other: OtherNode, reach: Reach
) -> None:
    other.site = site_of(reach, b"", 1)
    ended = delegated(idnode, other)
    assert ended.code == 1
    assert "names no address that others can ask" in ended.err
    assert "IDNODE_PUBLIC_ADDRESS" in ended.err
    assert idnode("prefix", "list", "--json").document == {"prefixes": []}


@pytest.mark.parametrize("place", ["", ":2641", "host:port", "host:0", "host:70000", "host:"])
def test_a_place_that_is_none_is_wrong_use(idnode: Idnode, place: str) -> None:
    ended = idnode("prefix", "delegate", PREFIX, "--enterprise", CODE, "--node", place)
    assert ended.code == 2
    assert "expected host:port" in ended.err


# admin


def test_a_prefix_gets_an_administrator_with_a_secret_that_is_shown_once(
    idnode: Idnode, book: Book
) -> None:
    idnode("prefix", "allot", PREFIX, "--enterprise", CODE)
    ended = idnode("prefix", "admin", PREFIX)
    assert ended.code == 0, ended.err
    secret = ended.out.strip()
    assert len(secret) == 32
    assert secret not in ended.err
    assert f"300:0.NA/{PREFIX} may administer" in ended.err
    values = book.values(PREFIX)
    assert {index: value.type for index, value in values.items()} == {
        100: "HS_ADMIN",
        300: "HS_SECKEY",
    }
    assert AdminRecord.from_wire(values[100].data) == AdminRecord(f"0.NA/{PREFIX}", 300, 0x0FFF)
    assert (values[300].data, values[300].permissions) == (secret.encode(), 0x0C)
    assert not values[300].is_public
    new = idnode("prefix", "admin", PREFIX, "--json").document
    assert new["identity"] == f"300:0.NA/{PREFIX}"
    assert book.values(PREFIX)[300].data == new["secret"].encode() != secret.encode()


def test_a_secret_or_a_public_key_may_come_from_a_file(
    idnode: Idnode, book: Book, tmp_path: Path
) -> None:
    idnode("prefix", "allot", PREFIX, "--enterprise", CODE, "--mode", "self_run")
    secret, public = tmp_path / "secret", tmp_path / "public.pem"
    secret.write_text("correct horse\r\n")
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    public.write_bytes(_pem(key))
    words = ("prefix", "admin", PREFIX, "--secret-file", str(secret))
    assert idnode(*words).out == f"300:0.NA/{PREFIX} may administer the prefix now\n"
    assert "unchanged" in idnode(*words).out
    assert idnode("prefix", "admin", PREFIX, "--public-key", str(public)).code == 0
    assert idnode("prefix", "admin", PREFIX, "--public-key", str(public), "--index", "9").code == 0
    values = book.values(PREFIX)
    assert {index: value.type for index, value in values.items()} == {
        9: "HS_PUBKEY",
        100: "HS_ADMIN",
        101: "HS_ADMIN",
        102: "HS_ADMIN",
        300: "HS_SECKEY",
        301: "HS_PUBKEY",
    }
    assert values[300].data == b"correct horse"
    assert values[301].data == public_key_record(_pem(key))
    assert [AdminRecord.from_wire(values[index].data).index for index in (100, 101, 102)] == [
        300,
        301,
        9,
    ]


def test_what_cannot_be_an_administrators_key_is_refused(
    idnode: Idnode, book: Book, tmp_path: Path
) -> None:
    idnode("prefix", "allot", PREFIX, "--enterprise", CODE)
    short, long = tmp_path / "short", tmp_path / "long"
    short.write_text("secret\n")
    long.write_bytes(b"x" * 20_000)
    for words, reason in {
        ("--secret-file", str(short)): "too short: at least 8 bytes",
        ("--secret-file", str(long)): "has more than 16384 bytes",
        ("--public-key", str(short)): "short: HS_PUBKEY",
        ("--public-key", str(tmp_path / "none")): "No such file",
    }.items():
        ended = idnode("prefix", "admin", PREFIX, *words)
        assert ended.code == 1
        assert reason in ended.err
        assert "secret\n" not in ended.err
    both = ("--secret-file", str(long), "--public-key", str(short))
    assert idnode("prefix", "admin", PREFIX, *both).code == 2
    assert book.values(PREFIX) == {}


def test_an_index_with_something_else_is_not_taken(idnode: Idnode, book: Book) -> None:
    idnode("prefix", "allot", PREFIX, "--enterprise", CODE)
    book.put(f"0.NA/{PREFIX}", HandleValue(300, "HS_SITE", b"x"))
    ended = idnode("prefix", "admin", PREFIX)
    assert ended.code == 1
    assert "has a value HS_SITE at index 300" in ended.err
    assert ended.out == ""


def test_a_prefix_that_does_not_live_here_gets_no_administrator(idnode: Idnode) -> None:
    ended = idnode("prefix", "admin", "88.608.8")
    assert ended.code == 1
    assert "That prefix doesn't live here" in ended.err
    assert ended.out == ""


# Files of public keys


def _pem(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def test_every_kind_of_public_key_is_read() -> None:
    of_rsa = rsa.generate_private_key(65_537, 2_048).public_key()
    numbers = of_rsa.public_numbers()
    record = public_key_record(_pem(of_rsa))
    assert record == RsaPublicKey(numbers.e, numbers.n).to_wire()
    # As Handle.Net keeps it.
    assert public_key_record(record) == record
    of_dsa = dsa.generate_private_key(1_024).public_key()
    public = of_dsa.public_numbers()
    parameters = public.parameter_numbers
    assert public_key_record(_pem(of_dsa)) == (
        DsaPublicKey(parameters.q, parameters.p, parameters.g, public.y).to_wire()
    )
    of_ed25519 = ed25519.Ed25519PrivateKey.generate().public_key()
    assert public_key_record(_pem(of_ed25519)) == (
        b"\0\0\0\x0fED25519_PUB_KEY\0\0\0\0\0\x20" + of_ed25519.public_bytes_raw()
    )


def test_a_public_key_of_sm2_is_read() -> None:
    # The public key of the example in GB/T 32918.2, annex A.
    point = bytes.fromhex(
        "0409F9DF311E5421A150DD7D161E4BC5C672179FAD1833FC076BB08FF356F35020"
        "CCEA490CE26775A52DC6EA718CC1AA600AED05FBF35E084A6632F6072DA9AD13"
    )
    pem = (
        b"-----BEGIN PUBLIC KEY-----\n"
        b"MFkwEwYHKoZIzj0CAQYIKoEcz1UBgi0DQgAECfnfMR5UIaFQ3X0WHkvFxnIXn60Y\n"
        b"M/wHa7CP81bzUCDM6kkM4md1pS3G6nGMwapgCu0F+/NeCEpmMvYHLamtEw==\n"
        b"-----END PUBLIC KEY-----\n"
    )
    assert public_key_record(pem) == b"\0\0\0\x0bSM2_PUB_KEY\0\0\0\0\0\x41" + point


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "HS_PUBKEY"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "BEGIN PUBLIC KEY"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "expected a public key"),
        (b"\0\0\0\x0aDH_PUB_KEY\0\0", "type 'DH_PUB_KEY'"),
        (RsaPublicKey(3, (1 << 511) + 1).to_wire(), "RSA key of 512 bits"),
    ],
)
def test_what_is_no_public_key_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason):
        public_key_record(data)


def test_a_public_key_of_another_curve_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(InvalidValueError, match="RSA, DSA, Ed25519 or SM2"):
        public_key_record(_pem(key))
