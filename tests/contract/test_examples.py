"""The recorded answers of the original image store, replayed."""

import pytest

from tests.contract.replay import EXAMPLES, EXCEPTIONS, Address, ask, differences, with_empty_lists

_NULL_LISTS = [name for name, reason in EXCEPTIONS.items() if reason.startswith("empty lists")]


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - EXCEPTIONS.keys()))
async def test_a_recorded_answer_is_given_again(name: str, address: Address) -> None:
    assert differences(EXAMPLES[name], await ask(address, EXAMPLES[name])) == []


@pytest.mark.parametrize("name", sorted(EXCEPTIONS))
async def test_every_exception_is_needed(name: str, address: Address) -> None:
    assert differences(EXAMPLES[name], await ask(address, EXAMPLES[name])) != []


@pytest.mark.parametrize("name", _NULL_LISTS)
async def test_an_empty_list_is_all_that_differs(name: str, address: Address) -> None:
    example = with_empty_lists(EXAMPLES[name])
    assert differences(example, await ask(address, example)) == []


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("http-method.post-lower-case", b'{"result":{"images":[]},"error":null,"id":7}\n'),
        ("http-method.GET-with-body", b'{"result":{"images":[]},"error":null,"id":7}\n'),
        ("method.bare", b'{"result":{"images":[]},"error":null,"id":7}\n'),
        ("method.doc-spelling-ListSnapshot", b'{"result":{"snapshots":[]},"error":null,"id":7}\n'),
        ("id.string-html", b'{"result":{"images":[]},"error":null,"id":"a<b>&c"}\n'),
        ("body.jsonrpc-2", b'{"jsonrpc":"2.0","result":{"images":[]},"id":1}\n'),
        ("coding.pprof-gzip", b"404 page not found\n"),
    ],
)
async def test_an_exception_answers_as_the_contract_says(name: str, answer: bytes, address: Address) -> None:
    assert (await ask(address, EXAMPLES[name])).body == answer
