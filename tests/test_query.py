"""Which values of a record a question selects."""

import pytest

from resolver.query import Query
from resolver.record import HandleValue

_TYPES = ("URL", "URL.CN", "EMAIL", "URLX", "HS_SECKEY")
_VALUES = tuple(
    HandleValue(index, type_, b"", permissions=0x0C if type_ == "HS_SECKEY" else 0x0E)
    for index, type_ in enumerate(_TYPES, 1)
)


@pytest.mark.parametrize(
    ("query", "indexes"),
    [
        (Query(), [1, 2, 3, 4]),
        (Query(public_only=False), [1, 2, 3, 4, 5]),
        (Query(indexes=(3, 1)), [1, 3]),
        (Query(indexes=(99,)), []),
        (Query(indexes=(5,)), []),
        (Query(indexes=(5,), public_only=False), [5]),
        (Query(types=("URL",)), [1]),
        (Query(types=("url",)), [1]),
        (Query(types=("URL.",)), [1, 2]),
        (Query(types=("url.",)), [1, 2]),
        (Query(types=("URL.CN",)), [2]),
        (Query(types=("URL.CN.",)), [2]),
        (Query(types=("URL.C",)), []),
        (Query(types=(".",)), []),
        (Query(types=("",)), []),
        (Query(types=("HS_SECKEY",)), []),
        (Query(types=("EMAIL", "URLX")), [3, 4]),
        (Query(indexes=(1,), types=("EMAIL",)), [1, 3]),
        (Query(indexes=(1, 1), types=("URL", "URL.")), [1, 2]),
    ],
)
def test_a_question_selects_the_union_in_the_order_of_the_record(
    query: Query, indexes: list[int]
) -> None:
    assert [value.index for value in query.select(_VALUES)] == indexes


@pytest.mark.parametrize(
    ("query", "is_plain"),
    [
        (Query(), True),
        (Query(indexes=(1,)), False),
        (Query(types=("URL",)), False),
        (Query(public_only=False), False),
    ],
)
def test_only_the_question_for_all_that_is_public_is_plain(query: Query, is_plain: bool) -> None:
    assert query.is_plain is is_plain
