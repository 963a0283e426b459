"""serve with sockets that a service manager has opened: who connected before it began is answered."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagestore.client import Client

MANAGER = """
import fcntl, os, sys
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1].split(",")]
for place, descriptor in enumerate(high, 3):
    os.dup2(descriptor, place)
    os.close(descriptor)
os.environ |= {"LISTEN_FDS": str(len(high)), "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-m", "imagestore", *sys.argv[2:]])
"""
"""What systemd does: sockets from descriptor 3 on, and the process told so by its own number."""


@contextmanager
def activated(directory: Path, *sockets: socket.socket) -> Iterator[subprocess.Popen[str]]:
    numbers = ",".join(str(each.fileno()) for each in sockets)
    flags = ["--pool", f"dir:{directory}/pool", "--journal", f"{directory}/journal", "--socket", "none"]
    with subprocess.Popen(
        [sys.executable, "-c", MANAGER, numbers, "serve", *flags, "--port", "1"],
        pass_fds=[each.fileno() for each in sockets],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_it_serves_what_it_was_handed_and_leaves_it_there(tmp_path: Path) -> None:
    path = tmp_path / "handed.sock"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        port = tcp.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as early:
            early.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with activated(tmp_path, tcp, unix) as process:
                assert early.recv(12) == b"HTTP/1.1 200"
                assert process.stdout is not None
                said = process.stdout.readline()
                assert f"ready at http://127.0.0.1:{port} and unix:{path}," in said
                Client(f"http://127.0.0.1:{port}").create_volume("a", size_mib=1)
                assert [each.id for each in Client(f"unix:{path}").list_volumes()] == ["pool/a"]
        assert process.returncode == 0
        assert path.is_socket()


def test_another_processs_sockets_are_left_alone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        flags = ["--pool", f"dir:{tmp_path}/pool", "--journal", f"{tmp_path}/journal", "--port", "0"]
        with subprocess.Popen(
            [sys.executable, "-m", "imagestore", "serve", *flags, "--socket", "none"],
            env={"LISTEN_FDS": "1", "LISTEN_PID": "1"},
            pass_fds=[foreign.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            process.terminate()
        assert "ready at http://127.0.0.1:" in said
        assert f":{foreign.getsockname()[1]}" not in said
