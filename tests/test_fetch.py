"""What is downloaded is the right file, whole, or nothing."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cvcc_zoo import create
from cvcc_zoo.fetch import address, fetch
from tests.test_weights import IMAGES, change, home, published  # noqa: F401  home is a fixture

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


def away(home: Path, url: str) -> bytes:  # noqa: F811
    """Published weights whose file is elsewhere; returns the file."""
    path = published(home)
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


@pytest.mark.parametrize("wrong", [lambda data: data[:-1], lambda data: data + b"0", lambda data: b"1" + data[1:]])
def test_another_file_is_not_kept(home: Path, server: Server, wrong: object) -> None:  # noqa: F811
    url, files, _ = server
    data = away(home, url)
    files["/resnet20.pets.safetensors"] = wrong(data)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"is not the file that was asked for: it has .* bytes and the sha256"):
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
    with pytest.raises(ValueError, match="is no address of a file"):
        fetch("ftp://x.org/a", Path("a"), "0" * 64, 1)
