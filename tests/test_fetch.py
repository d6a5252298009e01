"""What is downloaded is the right file, whole, or nothing."""

import hashlib
import http.server
import os
import socket
import threading
import time
import tracemalloc
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from cvcc_zoo import create, load
from cvcc_zoo.__main__ import meant_for_users
from cvcc_zoo.classifier import ImageClassifier
from cvcc_zoo.data.datasets import cifar10
from cvcc_zoo.files.download import address, fetch
from tests.test_weights import IMAGES, change, home, published, trained  # noqa: F401  home is a fixture

Served = dict[str, bytes]


@pytest.fixture
def server() -> Iterator[tuple[str, Served, list[str]]]:
    """An address, the files that it has, and the paths that it was asked for."""
    files: Served = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            data = files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", files, asked
    running.shutdown()
    thread.join()
    running.server_close()


Server = tuple[str, Served, list[str]]


def away(home: Path, url: str, model: ImageClassifier | None = None) -> bytes:  # noqa: F811
    """Published weights whose file is elsewhere; returns the file."""
    path = published(home, model)
    file = path.with_suffix(".safetensors")
    data = file.read_bytes()
    file.unlink()
    change(path, url=f"{url}/{file.name}")
    return data


def test_a_file_is_downloaded_once_and_then_used(home: Path, server: Server) -> None:  # noqa: F811
    url, files, asked = server
    published(home)
    expected = create("resnet20.pets")(IMAGES)
    files["/resnet20.pets.safetensors"] = away(home, url)
    for _ in range(2):
        assert torch.equal(create("resnet20.pets")(IMAGES), expected)
    assert asked == ["/resnet20.pets.safetensors"]


def test_many_at_once_download_once(tmp_path: Path, server: Server) -> None:
    url, files, asked = server
    files["/f"] = data = bytes(3_000_000)
    sha256 = hashlib.sha256(data).hexdigest()
    threads = [threading.Thread(target=fetch, args=(f"{url}/f", tmp_path / "f", sha256, len(data))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "f").read_bytes() == data and asked == ["/f"]


def test_a_download_does_not_replace_other_weights_of_its_name(home: Path, server: Server) -> None:  # noqa: F811
    url, files, asked = server
    other, downloads = trained(), home.with_name("downloads")
    torch.nn.init.zeros_(other.network.get_parameter("fc.weight"))
    files["/resnet20.pets.safetensors"] = away(downloads, url, other)
    mine = published(home)
    for _ in range(2):
        assert torch.equal(load(downloads / mine.name)(IMAGES), other(IMAGES))
        assert torch.equal(load(mine)(IMAGES), trained()(IMAGES))
    assert asked == ["/resnet20.pets.safetensors"]


def test_a_downloaded_file_is_used_where_no_file_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    (tmp_path / "f").write_bytes(DATA)
    monkeypatch.setattr("cvcc_zoo.files.download.FileLock.acquire", refused)
    sha256 = hashlib.sha256(DATA).hexdigest()
    assert fetch("https://x.org/f", tmp_path / "f", sha256, len(DATA)) == tmp_path / "f"
    with pytest.raises(PermissionError):
        fetch("https://x.org/f", tmp_path / "g", sha256, len(DATA))


@pytest.mark.parametrize("wrong", [lambda data: data[:-1], lambda data: data + b"0", lambda data: b"1" + data[1:]])
def test_another_file_is_not_kept(home: Path, server: Server, wrong: object) -> None:  # noqa: F811
    url, files, _ = server
    data = away(home, url)
    files["/resnet20.pets.safetensors"] = wrong(data)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"is not the file that was asked for: it has .* bytes"):
        create("resnet20.pets")
    assert [path.name for path in home.glob("[!.]*")] == ["resnet20.pets.json"]


def test_without_a_network_the_message_says_which_file_to_put_where(
    home: Path,  # noqa: F811
    server: Server,
) -> None:
    url, _, _ = server
    away(home, url)
    with pytest.raises(ValueError, match=r"Not Found.* put the file resnet20.pets.safetensors \(.* bytes, sha256 "):
        create("resnet20.pets")
    away(home, "http://127.0.0.1:1")
    with pytest.raises(ValueError, match=rf"refused.* put the file resnet20.pets.safetensors .* into {home}"):
        create("resnet20.pets")


def test_addresses() -> None:
    assert address("hf://me/zoo", "a.b") == "https://huggingface.co/me/zoo/resolve/main/a.b"
    assert address("https://x.org/a.b", "a.b") == "https://x.org/a.b"
    for wrong in ("ftp://x.org/a", "http://[::1/a", "https://x.org:port/a", "https:///a", "x.org/a", "http://x.org/\n"):
        with pytest.raises(ValueError, match="is not the address of a file"):
            fetch(wrong, Path("a"), "0" * 64, 1)


DATA = b"weights" * 10
GOOD = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "nothing": b"",
    "no status": b"\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a status that is no number": b"HTTP/1.1 two OK\r\n\r\n",
    "a long status": b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n",
    "many headers": GOOD + b"x: y\r\n" * 200 + b"\r\n",
    "a long header": GOOD + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
    "less than it says": GOOD + b"Content-Length: 1000\r\n\r\n" + DATA[:9],
    "chunks of no size": GOOD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk that ends early": GOOD + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "an error of many lines": b"HTTP/1.1 500 " + b"\x1b[31mx" * 100 + b"\r\n\r\n",
    "a way to itself": b"HTTP/1.1 302 Found\r\nLocation: /f\r\n\r\n",
    "a way to nowhere": b"HTTP/1.1 302 Found\r\n\r\n",
    "a way to a file": b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
    "a way to ftp": b"HTTP/1.1 302 Found\r\nLocation: ftp://localhost:1/f\r\n\r\n",
    "a way to half an address": b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
    "a way to a long name": b"HTTP/1.1 302 Found\r\nLocation: http://" + b"x" * 100 + b".org/\r\n\r\n",
    "no end of preliminary answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
    "no end of a redirection": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n" + bytes(1 << 22),
}


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that does this with every connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threads = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.recv(1 << 16)
                    answer(connection)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):
                        pass

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[0].start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/f"
        listening.shutdown(socket.SHUT_RDWR)
        threads[0].join(timeout=10)


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_bad_answer_is_told_in_one_line_and_nothing_stays(tmp_path: Path, kind: str) -> None:
    with answering(lambda connection: connection.sendall(ANSWERS[kind])) as url:
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=r"cannot be downloaded|is not the file") as caught:
                fetch(url, tmp_path / "f", hashlib.sha256(DATA).hexdigest(), len(DATA))
            assert tracemalloc.get_traced_memory()[1] < 20e6
        finally:
            tracemalloc.stop()
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    assert meant_for_users(caught.value) == str(caught.value)


@pytest.mark.parametrize("start", [b"", GOOD + b"Content-Length: 70\r\n\r\n", b"HTTP/1.1 100 Continue\r\nx: "])
def test_a_server_that_drips_is_not_waited_for(tmp_path: Path, start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvcc_zoo.files.web.WINDOW", 0.3)
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(start)
        while not ended.wait(0.05):
            connection.sendall(b"x")

    with answering(drip) as url:
        since = time.monotonic()
        with pytest.raises(ValueError, match=r"only \d+ bytes came in \d+ s"):
            fetch(url, tmp_path / "f", hashlib.sha256(DATA).hexdigest(), len(DATA))
        ended.set()
        assert time.monotonic() - since < 20
    assert not list(tmp_path.iterdir())  # the lock is given back


def test_a_server_that_is_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvcc_zoo.files.web.TIMEOUT", 0.2)
    ended = threading.Event()

    def wait(connection: socket.socket) -> None:
        ended.wait(20)

    with answering(wait) as url:
        with pytest.raises(ValueError, match="timed out"):
            fetch(url, tmp_path / "f", hashlib.sha256(DATA).hexdigest(), len(DATA))
        ended.set()


def test_a_pause_in_a_download_that_comes_on_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvcc_zoo.files.web.WINDOW", 0.1)
    data = bytes(range(256)) * 100

    def stumble(connection: socket.socket) -> None:
        connection.sendall(GOOD + b"\r\n")
        for start in range(0, len(data), 6400):
            time.sleep(0.15)
            connection.sendall(data[start : start + 6400])

    with answering(stumble) as url:
        assert fetch(url, tmp_path / "f", hashlib.sha256(data).hexdigest(), len(data)).read_bytes() == data


def test_files_of_this_machine_are_regular_ones(tmp_path: Path) -> None:
    there, sha256 = tmp_path / "a folder", hashlib.sha256(DATA).hexdigest()
    there.mkdir()
    (there / "f").write_bytes(DATA)
    assert fetch((there / "f").as_uri(), tmp_path / "f", sha256, len(DATA)).read_bytes() == DATA
    os.mkfifo(there / "pipe")
    (there / "link").symlink_to(there / "pipe")
    for name, why in (
        ("pipe", "it is not a regular file"), ("link", "it is not a regular file"), ("", "it is not a regular file"),
        ("gone", "there is no such file"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            fetch((there / name).as_uri(), tmp_path / "g", sha256, len(DATA))
    for device in ("file:///dev/zero", "file://other.org/etc/passwd"):
        with pytest.raises(ValueError, match="cannot be downloaded"):
            fetch(device, tmp_path / "g", sha256, len(DATA))


def test_what_a_killed_download_left_goes_with_the_next_one(tmp_path: Path, server: Server) -> None:
    url, files, _ = server
    left = tmp_path / f".f-{'0' * 16}.unfinished"
    left.write_bytes(DATA[:9])
    files["/f"] = DATA
    fetch(f"{url}/f", tmp_path / "f", hashlib.sha256(DATA).hexdigest(), len(DATA))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_data_sets_are_downloaded_from_servers_that_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision has no limits of its own."""
    monkeypatch.setattr("cvcc_zoo.files.web.WINDOW", 0.3)
    before = vars(urllib.request)["_opener"]
    for kind in ("another protocol", "a way to a long name", "chunks of no size", "drip"):
        ended = threading.Event()

        def answer(connection: socket.socket, kind: str = kind, ended: threading.Event = ended) -> None:
            connection.sendall(ANSWERS.get(kind, GOOD + b"Content-Length: 70\r\n\r\n"))
            while kind == "drip" and not ended.wait(0.05):
                connection.sendall(b"x")

        with answering(answer) as url:
            monkeypatch.setattr("torchvision.datasets.CIFAR10.url", url)
            with pytest.raises(FileNotFoundError, match=r"cifar10 is not in .* and could not be downloaded"):
                cifar10(tmp_path / "data").prepare()
            ended.set()
            assert not any((tmp_path / "data").glob("*"))  # and no half file
    assert vars(urllib.request)["_opener"] is before
