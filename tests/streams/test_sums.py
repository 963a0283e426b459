"""The lists of sums that publishers put beside their images."""

import pytest

from imagestore.errors import FetchFailed, InvalidArgument
from imagestore.streams.sums import check_sha256, digest_of

A, B, OTHER = "a1" * 32, "B2" * 32, "c3" * 64

FORMS = {
    "text": f"{A}  debian.qcow2\n",
    "binary mark": f"{A} *debian.qcow2\n",
    "capitals": f"{A.upper()}  debian.qcow2\n",
    "a path": f"{A}  ./images/debian.qcow2\n",
    "BSD": f"SHA256 (debian.qcow2) = {A}\n",
    "BSD of openssl": f"SHA256(debian.qcow2)= {A}\n",
    "without a last newline": f"{A}  debian.qcow2",
    "DOS lines": f"{B}  other\r\n{A}  debian.qcow2\r\n",
    "among others": f"# sums\n\n{B}  debian.raw\n{A}  debian.qcow2\n{B}  debian.qcow2.asc\n",
    "among other algorithms": f"{OTHER}  debian.qcow2\nSHA512 (debian.qcow2) = {OTHER}\n{A}  debian.qcow2\n",
    "twice the same": f"{A}  debian.qcow2\n{A} *./debian.qcow2\n",
    "a bare digest": f"{A}\n",
    "a comment and a bare digest": f"# of debian.qcow2\n{A}\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_digest_of_a_name_is_found(form: str) -> None:
    assert digest_of(FORMS[form].encode(), "debian.qcow2") == A


def test_an_escaped_name_is_what_it_says() -> None:
    assert digest_of(f"\\{A}  back\\\\slash\n".encode(), "back\\slash") == A


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{B}  debian.qcow2.part\n",
        f"{B}  xdebian.qcow2\n",
        f"{A[:-1]}  debian.qcow2\n",
        f"{A} debian.qcow2\n",
        f"MD5 (debian.qcow2) = {A}\n",
        f"{A}\n{B}\n",
        "<html>not found</html>",
    ],
)
def test_a_name_that_is_not_listed_has_no_digest(text: str) -> None:
    with pytest.raises(FetchFailed, match=r"lists no sha256 of debian\.qcow2"):
        digest_of(text.encode(), "debian.qcow2")


def test_two_digests_of_one_name_are_none() -> None:
    with pytest.raises(FetchFailed, match="2 different"):
        digest_of(f"{A}  debian.qcow2\n{B}  debian.qcow2\n".encode(), "debian.qcow2")


@pytest.mark.parametrize("text", [B, f" {B}\n", f"sha256:{B}"])
def test_a_given_digest_is_put_in_lower_case(text: str) -> None:
    assert check_sha256(text) == B.lower()


@pytest.mark.parametrize("text", ["", "abc", A + "0", "g" * 64, "sha512:" + A])
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="64 hexadecimal digits"):
        check_sha256(text)
