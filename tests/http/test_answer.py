"""The choice of a content coding."""

import gzip
import zlib

import pytest

from imagestore.http.answer import choose_coding, coded, text_answer


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("", ""),
        ("identity", ""),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("deflate, gzip", "deflate"),
        ("gzip, deflate", "gzip"),
        ("deflate;q=0.5, gzip;q=0.8", "gzip"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("gzip;q=0, deflate;q=0.1", "deflate"),
        ("gzip;q=0.000", ""),
        ("gzip;q=x", ""),
        ("gzip;q=nan", ""),
        ("br;q=1, gzip; q=0.3", "gzip"),
        ("*", ""),
        ("x-gzip", ""),
    ],
)
def test_the_coding_with_the_highest_quality_is_chosen(accept: str, coding: str) -> None:
    assert choose_coding(accept) == coding


def test_gzip_and_raw_deflate_undo_to_the_body() -> None:
    plain = text_answer(200, "a" * 1000)
    assert gzip.decompress(coded(plain, "gzip").body) == plain.body
    assert zlib.decompress(coded(plain, "deflate").body, -zlib.MAX_WBITS) == plain.body


def test_the_length_is_that_of_the_coded_body() -> None:
    answer = coded(text_answer(200, "a" * 1000), "gzip")
    assert (b"content-length", str(len(answer.body)).encode()) in answer.all_headers()
