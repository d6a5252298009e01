"""Answers of servers that end: none may be endless in bytes, or come so slowly that nobody can wait for it."""

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
WINDOW = 60.0  # seconds in which some have to come
SLOWEST = 1000.0  # bytes a second, on the mean of a window
BESIDE = 1 << 20  # bytes of headers and of the marks between chunks; a server that means well sends some thousand
LONGEST_REASON = 200  # characters; a server chooses them


class UnavailableError(Exception):
    """Something cannot be had from a server; the message says why, in one line."""


class _Timed(io.RawIOBase):
    """What comes through a socket. Raises TimeoutError where too little does, and ValueError for more than `most`."""

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
            raise ValueError("the answer is longer than what was asked for")
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
        fp.close()  # or urllib would read the body, which may be any
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def opener(most: int) -> urllib.request.OpenerDirector:
    """Opens http:// and https:// addresses, through the proxies of the environment, for answers of `most` bytes."""
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
    """What others ask of servers by `urllib.request.urlopen` ends, too, and has at most so many bytes an answer."""
    before = vars(urllib.request)["_opener"]
    urllib.request.install_opener(opener(most))
    try:
        yield
    finally:
        urllib.request.install_opener(before)


def parts(address: str, most: int, size: int, headers: Mapping[str, str]) -> Iterator[bytes]:
    """What is at a http, https or file address, in parts of up to `size` bytes, and up to `most` bytes of it.

    A file is a regular one of this machine. `headers` are sent to that server, and to none that it names. Raises
    UnavailableError for whatever goes wrong.
    """
    try:
        with _open(address, most, headers) as answer:
            while part := answer.read1(size):
                yield part
    except Exception as error:  # of sockets, of TLS, of http.client, of encodings: there is no end of bad answers
        if isinstance(error, HTTPError):
            error.close()
        reason = (isinstance(error, URLError) and error.reason) or error
        raise UnavailableError(textwrap.shorten(str(reason), LONGEST_REASON) or type(error).__name__) from error


def _open(address: str, most: int, headers: Mapping[str, str]) -> Any:
    place = urlsplit(address)
    if place.scheme == "file":
        path = Path(urllib.request.url2pathname(place.path))
        if place.netloc not in ("", "localhost"):
            raise ValueError("file:// is for files of this machine: file:///folder/name")
        if not path.is_file():  # opening a pipe would wait for somebody who writes
            raise ValueError("there is no such file" if not path.exists() else "it is no regular file")
        return path.open("rb")
    request = urllib.request.Request(address, headers={"User-Agent": "cvcc_zoo"})
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    return opener(most).open(request, timeout=TIMEOUT)
