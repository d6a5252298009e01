"""Uploads to the demo: a private folder, limits of size and time, and decoding outside the server's process."""

import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cvcc_zoo.data.decode import Decoding, Pixels, is_visible
from cvcc_zoo.data.opening import MAX_PIXELS, NeedsOptionError
from cvcc_zoo.data.workers import read_each

FILES = "GRADIO_TEMP_DIR"  # Gradio's folder of uploads; the variable is read when Gradio is imported
LARGEST = 50_000_000  # maximum bytes of an upload
HELD = 500_000_000  # maximum bytes of all uploads at a time
REMOVED = (60, 600)  # seconds: every minute, remove files older than ten minutes
LAYERS = 100  # maximum number of layers of a drawing
T = TypeVar("T")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


@contextmanager
def own_files() -> Iterator[Path]:
    """Let Gradio store uploads in a folder that only this user can read, and that is removed at the end.

    By default Gradio stores every image forever in a folder that all users of the machine can read.
    """
    before = os.environ.get(FILES)
    with tempfile.TemporaryDirectory(prefix="cvcc_zoo-demo-") as folder:
        os.environ[FILES] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[FILES]
            if before is not None:
                os.environ[FILES] = before


class Limits:
    """ASGI middleware that refuses requests that are too large, and uploads while too many bytes are stored."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], folder: Path) -> None:
        self._app, self._folder, self._arriving = app, folder, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with a reason; the server reads no more than its content-length."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        size = int(length) if length.isdigit() else -1
        held = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        if size < 0:
            await _refuse(receive, send, 411, "A request needs a content-length.")
        elif size > LARGEST:
            await _refuse(receive, send, 413, f"The limit for an image is {LARGEST / 1e6:.0f} MB; make it smaller.")
        elif scope["path"].rstrip("/").endswith("/upload") and held + self._arriving + size > HELD:
            await _refuse(receive, send, 429, f"{HELD / 1e6:.0f} MB of images are stored already; wait ten minutes.")
        else:
            self._arriving += size
            try:
                await self._app(scope, receive, send)
            finally:
                self._arriving -= size


async def _refuse(receive: Receive, send: Send, status: int, text: str) -> None:
    """Answer with the reason, after reading the whole request, because a browser sends all before it reads."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


class Drawings(dict[str, Any]):
    """Drawings sent by browsers, by id; the oldest are removed when they take too much memory."""

    def __setitem__(self, name: str, drawing: Any) -> None:
        """Store a drawing with its `background`, `layers` and `composite`, which are bytes or None."""
        super().__setitem__(name, drawing)
        while len(self) > 1 and sum(map(_size, self.values())) > HELD:
            del self[next(iter(self))]


def _size(drawing: Any) -> int:
    return sum(len(each) for each in (drawing.background, drawing.composite, *drawing.layers) if each)


def as_files(editor: Any) -> None:
    """Make an ImageEditor of Gradio pass on files; it would decode them itself, with any reader of PIL."""
    from gradio.components.base import server

    keep = editor.accept_blobs

    def accept_blobs(data: Any) -> None:
        layer = data.data["index"]
        if layer not in (None, "", "null") and int(layer) not in range(LAYERS):
            raise ValueError(f"a drawing has at most {LAYERS} layers")
        keep(data)

    def file_of(content: Any) -> str | None:
        if not isinstance(content, bytes):
            return content.path if content else None
        with tempfile.NamedTemporaryFile(dir=os.environ[FILES], delete=False) as file:
            file.write(content)
        editor.temp_files.add(file.name)
        return file.name

    def preprocess(payload: Any) -> dict[str, str | None] | None:
        drawing = editor.blob_storage.pop(payload.id, None) if payload and payload.id else payload
        return drawing and {name: file_of(getattr(drawing, name)) for name in ("background", "composite")}

    accept_blobs.__annotations__ = dict(keep.__annotations__)
    server(accept_blobs)  # type: ignore[no-untyped-call]
    editor.blob_storage, editor.accept_blobs, editor.preprocess = Drawings(), accept_blobs, preprocess


def decoded(path: str, decoding: Decoding) -> Pixels:
    """Decode an image file as in training, to uint8 (C, H, W). Raises ValueError, which does not name the file."""
    return _read(path, decoding)


def is_blank(path: str) -> bool:
    """Return whether an image is transparent everywhere. Raises ValueError, which does not name the file."""
    return not _read(path, is_visible)


def _read(path: str, read: Callable[[str], T]) -> T:
    ((_, found),) = read_each([path], read)
    if isinstance(found, NeedsOptionError):
        raise ValueError(f"the image has more than {MAX_PIXELS:,} pixels; make it smaller") from found
    if isinstance(found, ValueError):
        raise ValueError(str(found).replace(path, "the image")) from found
    return found
