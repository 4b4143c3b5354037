"""Being a node in the tree: whom a resolver sends to whom, and what it says of itself."""

import base64
from collections.abc import Sequence

import httpx
import pytest

from registry.prefixes import SELF_RUN
from registry.records_memory import MemoryRecords
from resolver.errors import RegistryUnavailableError
from resolver.identifier import Identifier, from_text
from resolver.own_site import OwnSite, Reach, site_of
from resolver.prefix_directory import PrefixState
from resolver.record import PERMISSIONS_DEFAULT, PUBLIC_READ, HandleValue, Record
from resolver.resolve import Resolution, Resolver
from resolver.response_code import ResponseCode
from resolver.shared_memory import MemoryCache
from resolver.unknown_budget import UnknownBudget
from tests.conftest import RunningNode
from tests.resolving_worker import AUTHOR, PREFIX
from tests.tenant import Tenant, counted, tenant
from tests.test_resolve import NOW_S, Kit

NODE, HOSTED, ENTERPRISE, SUSPENDED = "88.608", "88.608.1", "88.608.7", "88.608.9"
OWN_SITE = site_of(Reach("192.0.2.1", 2641, 8000), b"", 1)
THERE = site_of(Reach("192.0.2.7", 2641), b"", 5).to_wire()
SITE = HandleValue(1, "HS_SITE", THERE)
SITE_OF_DERIVED = HandleValue(2, "HS_SITE.PREFIX", THERE)
STATES = (
    PrefixState(PREFIX),
    PrefixState(NODE, homed=True),
    PrefixState(HOSTED),
    PrefixState(ENTERPRISE, hosted=False),
    PrefixState(SUSPENDED, suspended=True),
)


class Away(MemoryRecords):
    """Records that a test may take away while the resolver does not know it."""

    is_away = False

    async def fetch_many(self, keys: Sequence[str]) -> dict[str, Record]:
        if self.is_away:
            raise RegistryUnavailableError("PostgreSQL is away")
        return await super().fetch_many(keys)


class Tree(Kit):
    """A secondary node's resolver: one hosted enterprise, one with its own node."""

    def __init__(self, own: OwnSite | None, unknown: UnknownBudget | None = None) -> None:
        self.away = Away({"0.NA", NODE, HOSTED, PREFIX})
        super().__init__(self.away, MemoryCache())
        self.directory.replace(STATES)
        self.resolver = Resolver(
            self.held, self.cache, self.directory, self.hot, unknown, self.resolver.lookups, own
        )

    async def keep(self, text: str, *values: HandleValue) -> None:
        await self.truth.put(from_text(text), values, AUTHOR, NOW_S)

    async def ask(self, text: str, *, do_not_refer: bool = False) -> Resolution:
        self.hot.heard(self.now_s)
        asked = from_text(text)
        return await self.resolver.resolve(asked, self.now_s, do_not_refer=do_not_refer)


@pytest.fixture
def tree() -> Tree:
    return Tree(OwnSite(OWN_SITE))


def shown(resolution: Resolution) -> list[tuple[int, str]]:
    assert resolution.code == ResponseCode.SUCCESS, resolution
    return [(value.index, value.type) for value in resolution.record.values]


# What the node says of itself


async def test_a_hosted_prefix_says_that_it_lives_here(tree: Tree) -> None:
    found = await tree.ask(HOSTED)
    assert shown(found) == [(1, "HS_SITE")]
    assert found.record.handle == f"0.NA/{HOSTED}"
    assert found.record.values[0].data == OWN_SITE.to_wire()
    assert found.stale_age_s is None


async def test_the_nodes_own_prefix_says_who_answers_for_derived_prefixes(tree: Tree) -> None:
    assert shown(await tree.ask(f"0.na/{NODE}")) == [(1, "HS_SITE"), (2, "HS_SITE.PREFIX")]


async def test_what_is_registered_of_a_prefix_stands_beside_its_site(tree: Tree) -> None:
    assert shown(await tree.ask(HOSTED)) == [(1, "HS_SITE")]
    await tree.keep(f"0.NA/{HOSTED}", HandleValue(1, "DESC", b"x"))
    await tree.cache.announce([("registered", "0.NA", 0)])
    assert shown(await tree.ask(HOSTED)) == [(2, "HS_SITE"), (1, "DESC")]


async def test_the_caches_hold_what_is_registered_not_what_the_node_says(tree: Tree) -> None:
    await tree.keep(f"0.NA/{HOSTED}", HandleValue(1, "DESC", b"x"))
    await tree.ask(HOSTED)
    other = Tree(None)
    other.cache = tree.cache
    other.resolver = Resolver(other.held, tree.cache, other.directory, other.hot)
    assert shown(await other.ask(HOSTED)) == [(1, "DESC")]
    assert other.held.asked == []


async def test_a_registered_site_is_not_laid_over(tree: Tree) -> None:
    await tree.keep(f"0.NA/{HOSTED}", HandleValue(9, "HS_SERV", b"88.608/SVC"))
    assert shown(await tree.ask(HOSTED)) == [(9, "HS_SERV")]


async def test_a_prefix_that_its_enterprise_runs_does_not_live_here(tree: Tree) -> None:
    assert (await tree.ask(ENTERPRISE)).code == ResponseCode.HANDLE_NOT_FOUND
    await tree.keep(f"0.NA/{ENTERPRISE}", SITE)
    await tree.cache.announce([("registered", "0.NA", 0)])
    assert shown(await tree.ask(ENTERPRISE)) == [(1, "HS_SITE")]


async def test_a_derived_prefix_that_was_delegated_natively_is_referred_to(tree: Tree) -> None:
    derived = f"{NODE}.55"
    assert (await tree.ask(f"{derived}/A")).code == ResponseCode.SERVER_NOT_RESPONSIBLE
    await tree.keep(f"0.NA/{derived}", SITE)
    await tree.cache.announce([("registered", "0.NA", 0)])
    found = await tree.ask(f"{derived}/A")
    assert found.code == ResponseCode.SERVICE_REFERRAL
    assert [value.data for value in found.referral] == [THERE]
    not_referred = await tree.ask(f"{derived}/A", do_not_refer=True)
    assert not_referred.code == ResponseCode.SERVER_NOT_RESPONSIBLE
    assert not_referred.referral == ()


async def test_of_prefixes_that_are_not_derived_from_one_here_nothing_is_looked_up(
    tree: Tree,
) -> None:
    found = await tree.ask("89.1/A")
    assert found.code == ResponseCode.SERVER_NOT_RESPONSIBLE
    assert tree.held.asked == []


async def test_without_postgres_the_node_still_says_where_a_prefix_lives(tree: Tree) -> None:
    tree.away.is_away = True
    found = await tree.ask(HOSTED)
    assert shown(found) == [(1, "HS_SITE")]
    assert found.stale_age_s == 0
    assert (await tree.ask(f"{HOSTED}/A")).code == ResponseCode.SERVER_TOO_BUSY
    assert (await tree.ask(ENTERPRISE)).code == ResponseCode.SERVER_TOO_BUSY


async def test_without_postgres_nothing_is_made_up_of_a_prefix_handle_that_is_registered(
    tree: Tree,
) -> None:
    await tree.keep(f"0.NA/{HOSTED}", HandleValue(9, "HS_SERV", b"88.608/SVC"))
    assert shown(await tree.ask(HOSTED)) == [(9, "HS_SERV")]
    tree.resolver.outdated(f"0.NA/{HOSTED}", 1_000)
    tree.away.is_away = True
    assert (await tree.ask(HOSTED)).code == ResponseCode.SERVER_TOO_BUSY


async def test_prefix_handles_are_found_however_many_made_up_names_are_asked_for() -> None:
    tree = Tree(OwnSite(OWN_SITE), UnknownBudget(1))
    made_up = [from_text(f"{HOSTED}/{number}") for number in range(50)]
    await tree.resolver.resolve_many(made_up, NOW_S)
    assert (await tree.ask(f"{HOSTED}/50")).is_refused
    assert shown(await tree.ask(HOSTED)) == [(1, "HS_SITE")]


# 303: prefixes derived from a delegated one


@pytest.mark.parametrize("text", [f"0.NA/{ENTERPRISE}.1", f"{ENTERPRISE}.1.2.3"])
async def test_a_derived_prefix_is_referred_to_the_node_that_has_it(tree: Tree, text: str) -> None:
    await tree.keep(f"0.NA/{ENTERPRISE}", SITE, SITE_OF_DERIVED)
    found = await tree.ask(text)
    assert found.code == ResponseCode.PREFIX_REFERRAL
    assert [(one.type, one.data) for one in found.referral] == [("HS_SITE.PREFIX", THERE)]
    assert found.prefix is not None
    assert found.prefix.key == ENTERPRISE


async def test_the_nearest_prefix_handle_decides(tree: Tree) -> None:
    nearer = HandleValue(5, "HS_SITE.PREFIX", b"nearer")
    await tree.keep(f"0.NA/{ENTERPRISE}", SITE, SITE_OF_DERIVED)
    await tree.keep(f"0.NA/{ENTERPRISE}.1", nearer)
    assert [one.data for one in (await tree.ask(f"{ENTERPRISE}.1.5")).referral] == [b"nearer"]
    assert [one.data for one in (await tree.ask(f"{ENTERPRISE}.2.5")).referral] == [THERE]
    # This one has its derived prefixes where it is itself: here.
    await tree.keep(f"0.NA/{ENTERPRISE}.3", SITE)
    assert (await tree.ask(f"{ENTERPRISE}.3.5")).code == ResponseCode.HANDLE_NOT_FOUND


async def test_a_derived_prefix_handle_that_is_here_is_answered(tree: Tree) -> None:
    await tree.keep(f"0.NA/{ENTERPRISE}", SITE, SITE_OF_DERIVED)
    await tree.keep(f"0.NA/{ENTERPRISE}.1", HandleValue(1, "DESC", b"x"))
    assert shown(await tree.ask(f"{ENTERPRISE}.1")) == [(1, "DESC")]


@pytest.mark.parametrize("text", [f"0.NA/{NODE}.77", f"{NODE}.77.1", f"{HOSTED}.1", ENTERPRISE])
async def test_a_derived_prefix_that_should_be_here_and_is_not_is_not_found(
    tree: Tree, text: str
) -> None:
    found = await tree.ask(text)
    assert (found.code, found.referral) == (ResponseCode.HANDLE_NOT_FOUND, ())


async def test_nobody_is_referred_to_this_very_node(tree: Tree) -> None:
    # An operator may write down what the node says anyway.
    await tree.keep(f"0.NA/{NODE}", HandleValue(2, "HS_SITE.PREFIX", OWN_SITE.to_wire()))
    assert (await tree.ask(f"0.NA/{NODE}.77")).code == ResponseCode.HANDLE_NOT_FOUND


@pytest.mark.parametrize("text", ["0.NA/88", "0.NA/89.1", "0.0/0.0", f"0.NA/0.NA/{NODE}", "89.1/A"])
async def test_what_is_not_ours_is_not_ours(tree: Tree, text: str) -> None:
    await tree.keep(f"0.NA/{ENTERPRISE}", SITE, SITE_OF_DERIVED)
    found = await tree.ask(text)
    assert (found.code, found.prefix) == (ResponseCode.SERVER_NOT_RESPONSIBLE, None)
    assert tree.held.asked == []


@pytest.mark.parametrize("text", [SUSPENDED, f"{SUSPENDED}.1", f"{SUSPENDED}/A"])
async def test_nobody_is_referred_from_a_suspended_prefix(tree: Tree, text: str) -> None:
    await tree.keep(f"0.NA/{SUSPENDED}", SITE, SITE_OF_DERIVED)
    found = await tree.ask(text)
    assert (found.code, found.message) == (
        ResponseCode.SERVER_NOT_RESPONSIBLE,
        "That prefix is suspended",
    )


# 302: identifiers of an enterprise's own node


async def test_an_identifier_of_a_delegated_prefix_is_referred_to_its_node(tree: Tree) -> None:
    await tree.keep(f"0.NA/{ENTERPRISE}", SITE, SITE_OF_DERIVED, HandleValue(7, "DESC", b"x"))
    found = await tree.ask(f"{ENTERPRISE}/WIDGET")
    assert found.code == ResponseCode.SERVICE_REFERRAL
    assert [(one.index, one.type, one.data) for one in found.referral] == [(1, "HS_SITE", THERE)]


async def test_a_site_that_is_not_public_is_told_nobody(tree: Tree) -> None:
    hidden = PERMISSIONS_DEFAULT & ~PUBLIC_READ
    await tree.keep(f"0.NA/{ENTERPRISE}", HandleValue(1, "HS_SITE", THERE, permissions=hidden))
    assert (await tree.ask(f"{ENTERPRISE}/A")).code == ResponseCode.SERVER_NOT_RESPONSIBLE


async def test_a_service_handle_that_lives_here_names_the_site(tree: Tree) -> None:
    await tree.keep(f"{NODE}/ENTSVC", SITE)
    await tree.keep(f"0.NA/{ENTERPRISE}", HandleValue(1, "HS_SERV", b"88.608/entsvc"))
    found = await tree.ask(f"{ENTERPRISE}/GADGET")
    assert found.code == ResponseCode.SERVICE_REFERRAL
    assert [one.data for one in found.referral] == [THERE]


@pytest.mark.parametrize("service", [b"10.1/SVC", b"88.608.7/SVC", b"88.608/NONE", b"", b"\xff"])
async def test_a_service_handle_that_names_no_site_here_refers_nobody(
    tree: Tree, service: bytes
) -> None:
    await tree.keep(f"0.NA/{ENTERPRISE}", HandleValue(1, "HS_SERV", service))
    found = await tree.ask(f"{ENTERPRISE}/GADGET")
    assert (found.code, found.message) == (
        ResponseCode.SERVER_NOT_RESPONSIBLE,
        "That prefix is run by its enterprise node",
    )


async def test_a_referral_follows_the_prefix_handle_at_once(tree: Tree) -> None:
    await tree.keep(f"0.NA/{ENTERPRISE}", SITE)
    assert (await tree.ask(f"{ENTERPRISE}/A")).referral == (
        await tree.ask(ENTERPRISE)
    ).record.values
    moved = HandleValue(1, "HS_SITE", b"moved")
    handle = from_text(ENTERPRISE)
    await tree.truth.put(handle, (moved,), AUTHOR, NOW_S)
    await tree.tell(1_000, handle)
    assert [one.data for one in (await tree.ask(f"{ENTERPRISE}/A")).referral] == [b"moved"]


async def test_what_was_known_is_referred_to_while_postgres_is_away(tree: Tree) -> None:
    await tree.keep(f"0.NA/{ENTERPRISE}", SITE)
    await tree.ask(ENTERPRISE)
    tree.away.is_up = False
    tree.away.is_away = True
    tree.now_s += 100_000
    found = await tree.ask(f"{ENTERPRISE}/A")
    assert found.code == ResponseCode.SERVICE_REFERRAL
    assert found.stale_age_s is not None


async def test_what_cannot_be_known_is_not_called_not_responsible(tree: Tree) -> None:
    tree.away.is_away = True
    assert (await tree.ask(f"{ENTERPRISE}/A")).code == ResponseCode.SERVER_TOO_BUSY
    assert (await tree.ask(f"{ENTERPRISE}.1")).code == ResponseCode.SERVER_TOO_BUSY


async def test_who_wants_no_referral_gets_none(tree: Tree) -> None:
    await tree.keep(f"0.NA/{ENTERPRISE}", SITE, SITE_OF_DERIVED)
    for text in (f"{ENTERPRISE}/A", f"{ENTERPRISE}.1"):
        found = await tree.ask(text, do_not_refer=True)
        assert (found.code, found.referral) == (ResponseCode.SERVER_NOT_RESPONSIBLE, ())
    missing = await tree.ask(f"{HOSTED}.1", do_not_refer=True)
    assert missing.code == ResponseCode.HANDLE_NOT_FOUND


async def test_a_thousand_referrals_are_one_question_more(tree: Tree) -> None:
    await tree.keep(f"0.NA/{ENTERPRISE}", SITE, SITE_OF_DERIVED)
    await tree.keep(f"{HOSTED}/A", HandleValue(1, "TEXT", b"a"))
    names = [f"{ENTERPRISE}/{number}" for number in range(500)]
    names += [f"{ENTERPRISE}.{number}" for number in range(499)] + [f"{HOSTED}/A"]
    asked: list[Identifier] = [from_text(text) for text in names]
    found = await tree.resolver.resolve_many(asked, NOW_S)
    codes = [one.code for one in found]
    assert codes == [302] * 500 + [303] * 499 + [1]
    assert len(tree.held.asked) == 2
    assert tree.held.asked[1] == [f"0.NA/{ENTERPRISE}"]


# Over HTTP


@pytest.fixture(scope="module")
def enterprise(node: RunningNode) -> Tenant:
    """An enterprise with its own node, and its prefix handle."""
    made = tenant(node, "88.102.60", 60, SELF_RUN)
    site = {"format": "base64", "value": _base64(THERE)}
    values = [
        {"index": 1, "type": "HS_SITE", "data": site},
        {"index": 2, "type": "HS_SITE.PREFIX", "data": site},
    ]
    with made.operator as operator:
        operator.put(f"/api/handles/0.NA/{made.prefix}", json=values).raise_for_status()
    return made


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _get(made: Tenant, path: str, **query: str) -> httpx.Response:
    with made.client() as client:
        return client.get(path, params=query)


@pytest.mark.parametrize(
    ("name", "code", "type_"),
    [("/WIDGET", 302, "HS_SITE"), (".7", 303, "HS_SITE.PREFIX")],
)
def test_a_referral_over_http_has_the_values(
    enterprise: Tenant, name: str, code: int, type_: str
) -> None:
    text = f"{enterprise.prefix}{name}"
    answer = _get(enterprise, f"/api/handles/{text}")
    assert answer.status_code == 300
    document = answer.json()
    assert list(document) == ["responseCode", "values", "handle"]
    assert (document["responseCode"], document["handle"]) == (code, text)
    (value,) = document["values"]
    (server,) = value["data"]["value"]["servers"]
    assert (value["type"], server["address"]) == (type_, "192.0.2.7")
    refused = _get(enterprise, f"/api/handles/{text}", doNotRefer="")
    assert (refused.status_code, refused.json()["responseCode"]) == (400, 301)


def test_a_referral_in_a_batch_has_the_values(enterprise: Tenant) -> None:
    asked = {"identifiers": [f"{enterprise.prefix}/A", f"{enterprise.prefix}.1"]}
    with enterprise.client() as client:
        results = client.post("/api/resolve", json=asked).json()["results"]
    assert [(one["responseCode"], one["values"][0]["type"]) for one in results] == [
        (302, "HS_SITE"),
        (303, "HS_SITE.PREFIX"),
    ]


def test_a_browser_is_told_that_the_prefix_is_elsewhere(enterprise: Tenant) -> None:
    answer = _get(enterprise, f"/{enterprise.prefix}/WIDGET")
    assert answer.status_code == 400
    assert "text/html" in answer.headers["content-type"]


def test_a_referral_counts_once_and_for_the_node(enterprise: Tenant) -> None:
    before = counted(enterprise.node)
    _get(enterprise, f"/api/handles/{enterprise.prefix}/WIDGET")
    _get(enterprise, f"/api/handles/{enterprise.prefix}.7")
    _get(enterprise, f"/api/handles/{enterprise.prefix}")
    assert counted(enterprise.node) - before == {
        ("node", "http_json", "referred", "anonymous"): 2,
        ("node", "http_json", "found", "anonymous"): 1,
    }


def test_a_hosted_prefix_says_over_http_where_it_lives(node: RunningNode) -> None:
    hosted = tenant(node, "88.102.61", 61)
    answer = _get(hosted, f"/api/handles/{hosted.prefix}", type="HS_SITE")
    assert answer.status_code == 200
    site = answer.json()["values"][0]["data"]["value"]
    assert site == _get(hosted, "/api/site").json()["site"]
