"""The JavaScript library that runs the student: two packages of the npm registry, of fixed versions and contents."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from distil_nlp.errors import UserError

_PATIENCE = 600
"""Seconds until a download is given up."""


@dataclass(frozen=True)
class NpmPackage:
    """A package of the npm registry.

    Attributes:
        name: its name there.
        version: its version.
        integrity: SHA-512 of its tarball in base64, as `package-lock.json` has it.
        files: path in the package → name of its copy. Copies end in `.js`, as many servers give `.mjs` another type.
    """

    name: str
    version: str
    integrity: str
    files: dict[str, str]


PACKAGES_OF_DEMO = (
    NpmPackage(
        "@huggingface/transformers",
        "4.3.2",
        "V3+dqf3iWlRYJ9I9GreM3zGQd0lAXnnoPeddmkOQYWAEE4l/+Fi6p7tx/qVUJlKQgLXGim2W76rTOzz+eC0i7g==",
        {"dist/transformers.web.min.js": "transformers.js", "LICENSE": "transformers.LICENSE.txt"},
    ),
    NpmPackage(
        "onnxruntime-web",
        "1.31.0-dev.20260914-8d85527a0",
        "Iy7rtadoBgxS/LLvDr3QW38DB1PNXRnr0GJMcL0TAt7c9qjgVQl83UlGCVyeAnK2InpmW8Uc3PL8XIuqtDeF6g==",
        {
            "dist/ort.wasm.min.mjs": "onnxruntime.js",
            "dist/ort-wasm-simd-threaded.mjs": "onnxruntime-wasm.js",
            "dist/ort-wasm-simd-threaded.wasm": "onnxruntime.wasm",
        },
    ),
)
"""transformers.js, and the version of onnxruntime's WebAssembly that it asks for; the build for the CPU alone."""


def fetch_library(folder: Path) -> None:
    """Download the packages with npm, check them, and put the files that a page needs into a folder.

    Raises:
        UserError: if npm is missing, the registry cannot be reached, or a package is another one than it should be.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            "npm",
            "npm to be installed",
            "no such program",
            why="the demo carries transformers.js, which npm downloads",
            fix="install Node.js, which has npm; only who makes the demo needs it",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        for package in PACKAGES_OF_DEMO:
            extract_files(_download(npm, package, Path(place)), package, folder)


def _download(npm: str, package: NpmPackage, place: Path) -> Path:
    """Return the tarball of a package; npm keeps what it downloaded, and takes it from there the next time."""
    wanted = f"{package.name}@{package.version}"
    options = ["--prefer-offline", "--loglevel=error", "--ignore-scripts"]
    command = [npm, "pack", wanted, "--pack-destination", str(place), *options]
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        problem = _reason_of(done.stderr) if done.returncode else None
    except subprocess.TimeoutExpired:
        problem = f"no answer within {_PATIENCE} seconds"
    if problem is not None:
        raise UserError(
            "npm",
            f"{wanted} from the npm registry",
            problem,
            why="the demo carries this library, so that its page asks no other server for it",
            fix=f"check the network: `npm view {wanted}` must work; npm keeps what it downloaded for the next time",
        )
    return max(place.glob("*.tgz"), key=lambda path: path.stat().st_mtime_ns)


def _reason_of(errors: str) -> str:
    """Return the first of npm's lines that is more than a code."""
    lines = [line.removeprefix("npm error ").removeprefix("npm ERR! ") for line in errors.strip().splitlines()]
    return next((line for line in lines if line and not line.startswith(("code ", "syscall ", "errno "))), "no package")


def extract_files(tarball: Path, package: NpmPackage, folder: Path) -> None:
    """Copy the files of a package that a page needs out of its tarball, whose contents are checked first.

    Raises:
        UserError: if the tarball is not the one whose checksum is known.
    """
    found = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if found != package.integrity:
        raise UserError(
            "npm",
            f"{package.name} {package.version} with sha512-{package.integrity[:12]}…",
            f"sha512-{found[:12]}…",
            why="the registry gave another package than the one that was tested",
            fix="check `npm config get registry`, and `npm cache clean --force`",
        )
    with tarfile.open(tarball) as archive:
        for source, name in package.files.items():
            member = archive.extractfile(f"package/{source}")
            assert member is not None, source  # the checksum says what is inside
            (folder / name).write_bytes(member.read())
