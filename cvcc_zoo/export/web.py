"""A page that classifies images in the browser: one HTML file with the ONNX program and ONNX Runtime Web inside.

It needs no server and no network, and opens with a double click. Runtime and program are compressed by gzip, which
browsers unpack since 2023: https://developer.mozilla.org/docs/Web/API/DecompressionStream.
"""

import base64
import gzip
import html
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageColor

from cvcc_zoo.files.own import expanded, write_whole
from cvcc_zoo.printing import first_line
from cvcc_zoo.zoo.trained import Trained

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
"""The version that npm gets; the tests ran with it."""
PARTS = {"script": "ort.wasm.min.js", "module": "ort-wasm-simd-threaded.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
LARGEST = 200_000_000  # bytes of a part; the largest has 14 million
PAGE, PROGRAM = "index.html", "model.onnx"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Runtime:
    """ONNX Runtime Web for the CPU: its script, and the module and the WebAssembly that the script loads."""

    script: bytes
    module: bytes
    wasm: bytes


def find_runtime(place: str = "") -> Runtime:
    """Read ONNX Runtime Web from an unpacked npm package or its .tgz file; by default npm gets it.

    Raises ValueError if it is not there, or if there is no npm or no network.
    """
    if place:
        path = expanded(place)
        return _from_archive(path) if path.is_file() else _from_folder(path)
    advice = f"`npm pack {PACKAGE}` writes it where there is a network; then give its file: --runtime=FILE.tgz"
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(f"the page needs {PACKAGE}, and there is no npm to get it; {advice}")
    with tempfile.TemporaryDirectory() as folder:
        words = [npm, "pack", f"{PACKAGE}@{VERSION}", "--prefer-offline", "--silent"]
        done = subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", check=False)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise ValueError(f"npm cannot get {PACKAGE} {VERSION} ({said[:200]}); {advice}")
        return _from_archive(archives[0])


def _from_folder(folder: Path) -> Runtime:
    files = {part: folder / "dist" / name for part, name in PARTS.items()}
    for file in files.values():
        if not file.is_file():
            raise ValueError(
                f"{folder} is not the npm package {PACKAGE}: it has no dist/{file.name}; give the folder that "
                f"`npm install {PACKAGE}` makes, node_modules/{PACKAGE}, or the file of `npm pack {PACKAGE}`"
            )
    return Runtime(**{part: file.read_bytes() for part, file in files.items()})


def _from_archive(path: Path) -> Runtime:
    parts = {}
    try:
        with tarfile.open(path) as archive:
            for part, name in PARTS.items():
                member = archive.getmember(f"package/dist/{name}")
                file = archive.extractfile(member)
                if file is None or member.size > LARGEST:
                    raise KeyError(name)
                parts[part] = file.read()
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise ValueError(
            f"{path} is not the file of `npm pack {PACKAGE}` ({first_line(error)}); pack it again"
        ) from error
    return Runtime(**parts)


def write_page(trained: Trained, program: bytes, folder: Path, runtime: Runtime) -> Path:
    """Write the page for an ONNX program of a model into a folder, and return its path."""
    model = trained.model
    card = {
        "name": trained.name,
        "dataset": trained.dataset,
        "classes": trained.classes,
        "size": model.image_size,
        "channels": model.in_channels,
        "resize": trained.model.shaping["resize"],
        "background": ImageColor.getrgb(trained.model.shaping["background"])[:3],
    }
    parts = {
        "title": html.escape(f"{trained.name}, cvcc_zoo"),
        "runtime": _script(runtime.script.decode()),
        "module": _packed(runtime.module),
        "wasm": _packed(runtime.wasm),
        "model": _packed(program),
        "card": json.dumps(card).replace("<", "\\u003c"),  # a name could end the script
        "script": (HERE / "web.js").read_text(encoding="utf-8"),
    }
    template = (HERE / "web.html").read_text(encoding="utf-8")
    path = folder / PAGE
    write_whole(path, re.sub(r"@(\w+)@", lambda found: parts[found[1]], template).encode())
    return path


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


def _script(text: str) -> str:
    """Return JavaScript for an HTML page. Raises ValueError if it would end its element."""
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError(f"this version of {PACKAGE} cannot be put into a page; use {PACKAGE}@{VERSION}")
    return text
