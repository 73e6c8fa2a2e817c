"""Certificates by the `openssl` command (ECDSA P-256, as RKE2 makes them)."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .log import Fatal

CA_DAYS = 3650
LEAF_DAYS = 365
RENEW_DAYS = 120


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        raise Fatal(f"openssl {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def write(path: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Replace a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(name).chmod(mode)
    Path(name).rename(path)


def new_key() -> bytes:
    return openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


def make_ca(certificate: Path, key: Path, name: str) -> None:
    """Create a self-signed CA unless one exists (custom CAs are copied before the first start)."""
    if certificate.exists() and key.exists():
        return
    write(key, new_key())
    pem = openssl(
        "req", "-x509", "-new", "-key", str(key), "-days", str(CA_DAYS), "-subj", f"/CN={name}",
        "-addext", "keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign",
    )  # fmt: skip
    write(certificate, pem, 0o644)


def subject_alternatives(names: Iterable[str]) -> str:
    entries = []
    for name in dict.fromkeys(names):
        try:
            entries.append(f"IP:{ipaddress.ip_address(name)}")
        except ValueError:
            entries.append(f"DNS:{name}")
    return ",".join(entries)


def issue(
    ca: tuple[Path, Path],
    certificate: Path,
    key: Path,
    name: str,
    *,
    organization: str = "",
    names: Iterable[str] = (),
    usage: str = "clientAuth",
) -> bool:
    """Issue a leaf unless the existing one has the same properties and CA and does not expire soon; True if issued."""
    alternatives = subject_alternatives(names)
    wanted = hashlib.sha256(f"{name}|{organization}|{alternatives}|{usage}|".encode() + ca[0].read_bytes()).hexdigest()
    mark = certificate.with_name(f".{certificate.name}.wish")
    if key.exists() and certificate.exists() and mark.exists() and mark.read_text() == wanted:
        fresh = subprocess.run(
            ["openssl", "x509", "-checkend", str(RENEW_DAYS * 86400), "-noout", "-in", str(certificate)],
            capture_output=True,
            check=False,
        )
        if fresh.returncode == 0:
            return False
    if not key.exists():
        write(key, new_key())
    subject = (f"/O={organization}" if organization else "") + f"/CN={name}"
    extensions = ["-addext", f"extendedKeyUsage={usage}", "-addext", "basicConstraints=critical,CA:FALSE"]
    if alternatives:
        extensions += ["-addext", f"subjectAltName={alternatives}"]
    pem = openssl(
        "req", "-x509", "-new", "-key", str(key), "-CA", str(ca[0]), "-CAkey", str(ca[1]), "-days", str(LEAF_DAYS),
        "-subj", subject, "-addext", "keyUsage=critical,digitalSignature,keyEncipherment", *extensions,
    )  # fmt: skip
    write(certificate, pem + ca[0].read_bytes(), 0o644)
    write(mark, wanted)
    return True


def end_date(certificate: Path) -> str:
    """notAfter as openssl prints it in ISO form, for example `2027-11-21 05:00:00Z`."""
    line = openssl("x509", "-enddate", "-dateopt", "iso_8601", "-noout", "-in", str(certificate))
    return line.decode().strip().removeprefix("notAfter=")
