"""Requests read as the original read them, and guests that leave as they came."""

import msgspec
import pytest

from imagestore.http.json_text import value
from imagestore.http.shapes import REQUESTS, WrongType, read_request
from imagestore.model import AdoptRequest, GuestRequest, ImageRequest, SnapshotRequest, VolumeRequest
from imagestore.service import METHODS


def guest_after(sent: str) -> str:
    request = read_request(value(b'{"guest":%b}' % sent.encode()), GuestRequest)
    return msgspec.json.encode(request.guest).decode()


def test_every_request_of_the_method_table_can_be_read_with_all_its_fields() -> None:
    for method in METHODS:
        assert set(REQUESTS[method.request].fields) == set(method.request.__struct_encode_fields__)


@pytest.mark.parametrize(
    "sent",
    [
        '{"id":"g","disks":[],"x":1.50}',
        '{"id":"g","x":1e400,"y":-0.0,"z":1E5}',
        '{"id":"g","x":123456789012345678901234567890}',
        '{"id":"g","memory":18446744073709551615,"vnc":-1}',
        '{"id":"g","x":{"id":5,"disks":"x","deep":[[[null]]]},"y":[1,2.0,"a<b>&c"]}',
        '{"id":"g","metadata":{"k":"v","K":"V"},"nics":[{"network":"n","vlans":[1,2],"x":1.0}]}',
        '{"metadata":null,"id":"g","nics":null}',
        '{"id":"g","disks":[{"size":1,"x":1.50,"y":null}]}',
    ],
)
def test_a_guest_comes_back_as_it_was_sent(sent: str) -> None:
    assert guest_after(sent) == sent


def test_known_members_of_a_guest_are_found_whatever_their_case() -> None:
    assert guest_after('{"ID":"g","Disks":[{"SIZE":1}],"Own":2}') == '{"id":"g","disks":[{"size":1}],"Own":2}'


def test_null_is_the_zero_value() -> None:
    assert read_request(value(b'{"id":null,"size":null,"force":null}'), VolumeRequest) == VolumeRequest()
    assert read_request(value(b'{"guest":null,"args":null}'), GuestRequest) == GuestRequest()
    assert read_request(value(b"null"), ImageRequest) == ImageRequest()
    assert guest_after('{"id":null,"disks":null}') == "{}"
    assert guest_after('{"id":"g","disks":[null,{"size":null}]}') == '{"id":"g","disks":[{},{}]}'


def test_of_equal_keys_the_last_wins() -> None:
    assert read_request(value(b'{"id":"a","ID":"b"}'), ImageRequest).id == "b"


def test_uint64_takes_its_whole_range() -> None:
    assert read_request(value(b'{"size":18446744073709551615}'), VolumeRequest).size == (1 << 64) - 1


@pytest.mark.parametrize(
    ("request_type", "sent", "text"),
    [
        (VolumeRequest, '{"size":"5"}', "string into Go struct field VolumeRequest.size of type uint64"),
        (VolumeRequest, '{"size":0.5}', "number 0.5 into Go struct field VolumeRequest.size of type uint64"),
        (VolumeRequest, '{"size":1e3}', "number 1e3 into Go struct field VolumeRequest.size of type uint64"),
        (VolumeRequest, '{"size":[]}', "array into Go struct field VolumeRequest.size of type uint64"),
        (
            SnapshotRequest,
            '{"DESTROYmorerecent":1}',
            "number into Go struct field SnapshotRequest.destroyMoreRecent of type bool",
        ),
        (
            GuestRequest,
            '{"args":[]}',
            "array into Go struct field GuestRequest.args of type map[string]string",
        ),
        (
            GuestRequest,
            '{"guest":{"disks":{}}}',
            "object into Go struct field Guest.guest.disks of type []client.Disk",
        ),
        (
            GuestRequest,
            '{"guest":{"vnc":1.5}}',
            "number 1.5 into Go struct field Guest.guest.vnc of type int",
        ),
        (
            GuestRequest,
            '{"guest":{"nics":[{"vlans":["x"]}]}}',
            "string into Go struct field Nic.guest.nics.vlans of type int",
        ),
        (
            GuestRequest,
            '{"guest":{"metadata":{"a":1}}}',
            "number into Go struct field Guest.guest.metadata of type string",
        ),
    ],
)
def test_a_wrong_type_is_named_with_the_type_expected(
    request_type: type[VolumeRequest] | type[SnapshotRequest] | type[GuestRequest], sent: str, text: str
) -> None:
    with pytest.raises(WrongType) as caught:
        read_request(value(sent.encode()), request_type)
    assert str(caught.value) == f"json: cannot unmarshal {text}"


def test_a_disk_number_that_is_left_out_is_none_and_0_is_one() -> None:
    assert read_request({"id": "a", "guest": "g"}, AdoptRequest).disk is None
    assert read_request({"id": "a", "Disk": 0, "DRYRUN": True}, AdoptRequest) == AdoptRequest(
        id="a", disk=0, dryRun=True
    )
    with pytest.raises(WrongType, match=r"unmarshal string into Go struct field AdoptRequest\.disk of"):
        read_request({"disk": "0"}, AdoptRequest)
