"""HTTP responses of bounded length and time: servers cannot send endless data, or send it endlessly slowly.

torch.hub.download_url_to_file has neither a timeout nor a limit of bytes.
"""

import http.client
import io
import ssl
import textwrap
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

TIMEOUT = 30.0  # seconds without a byte
WINDOW = 60.0  # seconds over which the speed is measured
SLOWEST = 1000.0  # bytes a second, the mean over a window
BESIDE = 1 << 20  # bytes of headers and of the marks between chunks; ordinary servers send a few thousand
LONGEST_REASON = 200  # characters; the server chooses the text


class UnavailableError(Exception):
    """A server does not provide the data; the message says why, in one line."""


class _Timed(io.RawIOBase):
    """A reader of a socket. Raises TimeoutError if data is too slow, and ValueError after more than `most` bytes."""

    def __init__(self, sock: Any, most: int) -> None:
        self._sock, self._raw, self._left = sock, sock.makefile("rb", buffering=0), most
        self._waited, self._got = 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._waited > WINDOW:
            if self._got < SLOWEST * self._waited:
                raise TimeoutError(f"only {self._got:,} bytes came in {self._waited:.0f} s")
            self._waited, self._got = 0.0, 0
        if self._left < 0:
            raise ValueError("the response is longer than what was asked for")
        since = time.monotonic()
        self._sock.settimeout(TIMEOUT)
        count: int = self._raw.readinto(buffer)
        self._waited += time.monotonic() - since
        self._got, self._left = self._got + count, self._left - count
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, most: int, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Timed(sock, most))


class _Bounded:
    response_class: Any

    def __init__(self, *args: Any, most: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.response_class = partial(_Answer, most=most)


class _Http(_Bounded, http.client.HTTPConnection):
    pass


class _Https(_Bounded, http.client.HTTPSConnection):
    pass


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def __init__(self, most: int) -> None:
        super().__init__()
        self._bytes = most

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Http, req, most=self._bytes)  # type: ignore[arg-type]

    def https_open(self, req: urllib.request.Request) -> Any:
        context = ssl.create_default_context()
        return self.do_open(_Https, req, most=self._bytes, context=context)  # type: ignore[arg-type]


class _Redirects(urllib.request.HTTPRedirectHandler):
    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()  # otherwise urllib reads the body, which may be of any length
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def opener(most: int) -> urllib.request.OpenerDirector:
    """Return an opener of http:// and https:// addresses for up to `most` bytes; it uses the environment's proxies."""
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        _Handler(most + BESIDE),
    ):
        director.add_handler(handler)
    return director


@contextmanager
def ending(most: int) -> Iterator[None]:
    """Limit the responses that other libraries get from `urllib.request.urlopen`, in time and to `most` bytes each."""
    before = vars(urllib.request)["_opener"]
    urllib.request.install_opener(opener(most))
    try:
        yield
    finally:
        urllib.request.install_opener(before)


def parts(address: str, most: int, size: int, headers: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the content of an http, https or file address in parts of up to `size` bytes, `most` bytes in all.

    A file must be a regular file on this machine. `headers` are sent to the server, but not to those it redirects to.
    Raises UnavailableError for any failure.
    """
    try:
        with _open(address, most, headers) as answer:
            while part := answer.read1(size):
                yield part
    except Exception as error:  # of sockets, TLS, http.client, encodings: bad responses cause many kinds of errors
        if isinstance(error, HTTPError):
            error.close()
        reason = (isinstance(error, URLError) and error.reason) or error
        raise UnavailableError(textwrap.shorten(str(reason), LONGEST_REASON) or type(error).__name__) from error


def _open(address: str, most: int, headers: Mapping[str, str]) -> Any:
    place = urlsplit(address)
    if place.scheme == "file":
        path = Path(urllib.request.url2pathname(place.path))
        if place.netloc not in ("", "localhost"):
            raise ValueError("file:// is for files on this machine: file:///folder/name")
        if not path.is_file():  # opening a pipe would wait for a writer
            raise ValueError("there is no such file" if not path.exists() else "it is not a regular file")
        return path.open("rb")
    request = urllib.request.Request(address, headers={"User-Agent": "cvcc_zoo"})
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    return opener(most).open(request, timeout=TIMEOUT)
