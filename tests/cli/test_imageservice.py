"""The small image service speaks the form that the store fetches."""

import http.client
import json
import socket
from pathlib import Path

import pytest

from imagestore.cli.imageservice import Hold, ImageService
from imagestore.errors import ConfigError


def get(service: ImageService, path: str) -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection(service.address)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers["Content-Length"]
    finally:
        connection.close()


def test_an_image_is_its_file_with_its_length(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "deb12").write_bytes(content)
    with ImageService(str(tmp_path)) as service:
        assert get(service, "/images/deb12/download") == (200, content, str(len(content)))
        status, body, _ = get(service, "/images/deb12")
    metadata = json.loads(body)
    assert status == 200
    assert (metadata["id"], metadata["status"]) == ("deb12", "complete")
    assert metadata["size"] == metadata["expected_size"] == len(content)


@pytest.mark.parametrize(
    "path",
    ["/", "/images", "/images/none", "/images/none/download", "/images/..%2Fsecret/download", "/images/"],
)
def test_what_is_no_image_is_404(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "images").mkdir()
    with ImageService(str(tmp_path / "images")) as service:
        assert get(service, path)[0] == 404


def test_a_hold_stops_the_download_until_released(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    hold = Hold(512 << 10)
    with ImageService(str(tmp_path), holds={"a": hold}) as service:
        host, _, port = service.address.partition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET /images/a/download HTTP/1.0\r\n\r\n")
            assert hold.reached.wait(10)
            hold.release()
            received = 0
            while piece := connection.recv(1 << 16):
                received += len(piece)
        assert received > 1 << 20


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with ImageService(str(tmp_path)) as first:
        port = int(first.address.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            ImageService(str(tmp_path), port=port)


def test_a_directory_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a directory"):
        ImageService(str(tmp_path / "none"))
