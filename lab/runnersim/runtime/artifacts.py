"""Upload and download of artifacts, run by the job's user with the token in the environment."""

from __future__ import annotations

import gzip
import io
import os
import secrets
import stat
import sys
import zipfile
from pathlib import Path

from .client import Client


def _client() -> Client:
    return Client(os.environ["RUNNER_URL"], os.environ.get("RUNNER_CA_FILE", ""))


def collect(folder: Path, patterns: list[str]) -> list[Path]:
    """Files below `folder` that match, none through a link that leaves it."""
    root = folder.resolve()
    found: set[Path] = set()
    for pattern in patterns:
        for path in [folder / pattern] if (folder / pattern).exists() else folder.glob(pattern):
            inside = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
            found.update(
                item for item in inside if item.parent.resolve().is_relative_to(root) and ".git" not in item.parts
            )
    return sorted(item for item in found if item.is_symlink() or item.is_file())


def packed(folder: Path, files: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            name = str(path.relative_to(folder))
            if path.is_symlink():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(entry, str(path.readlink()))
            else:
                archive.write(path, name)
    return buffer.getvalue()


def form(fields: dict[str, str], name: str, content: bytes) -> tuple[str, bytes]:
    """Content type and body of a multipart upload."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + b"\r\n"
    )
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()


def upload(job: str, name: str, kind: str, *patterns: str) -> int:
    folder = Path.cwd()
    files = collect(folder, list(patterns))
    print(f"Uploading artifacts as {kind}: {len(files)} matching files and directories", flush=True)
    if not files:
        print(f"WARNING: {', '.join(patterns)}: no matching files. Nothing is uploaded.")
        return 0
    if kind == "archive":
        format, file, content = "zip", f"{name}.zip", packed(folder, files)
    else:
        format, file, content = "gzip", f"{name}.gz", gzip.compress(b"".join(path.read_bytes() for path in files))
    content_type, body = form({"artifact_type": kind, "artifact_format": format}, file, content)
    answer = _client().call(
        "POST",
        f"jobs/{job}/artifacts",
        body,
        {"Content-Type": content_type, "JOB-TOKEN": os.environ["RUNNER_ARTIFACT_TOKEN"]},
    )
    if answer.status != 201:
        print(f"ERROR: Uploading artifacts to coordinator... {answer.status} {answer.body.decode(errors='replace')}")
        return 1
    return 0


def download(job: str) -> int:
    answer = _client().call("GET", f"jobs/{job}/artifacts", None, {"JOB-TOKEN": os.environ["RUNNER_ARTIFACT_TOKEN"]})
    if answer.status != 200:
        print(f"ERROR: Downloading artifacts from coordinator... {answer.status}", file=sys.stderr)
        return 1
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        for entry in archive.infolist():
            mode = entry.external_attr >> 16
            if stat.S_ISLNK(mode):
                target = Path(entry.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.symlink_to(archive.read(entry).decode())
            else:
                path = Path(archive.extract(entry))
                if mode & 0o777 and path.is_file():
                    path.chmod(mode & 0o777)
    print(f"Downloading artifacts from coordinator... ok  id={job}")
    return 0
