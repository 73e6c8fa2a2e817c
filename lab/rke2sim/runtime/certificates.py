"""`rke2 certificate check` and `rke2 secrets-encrypt status`: read-only, from the files on disk."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from .config import Config
from .layout import Layout
from .log import Fatal
from .pki import RENEW_DAYS, end_date


def state(path: Path) -> tuple[str, str]:
    """Expiry and status: OK, WARNING within the renewal window, EXPIRED."""
    text = end_date(path)
    days = (datetime.fromisoformat(text.replace("Z", "+00:00")) - datetime.now(UTC)).days
    return text, "EXPIRED" if days < 0 else "WARNING" if days < RENEW_DAYS else "OK"


def check(layout: Layout, arguments: list[str]) -> None:
    output = "text"
    for position, word in enumerate(arguments):
        if word.startswith("--output"):
            output = word.partition("=")[2] or arguments[position + 1]
    if output not in ("text", "table", "json"):
        raise Fatal(f"invalid output format {output!r}")
    paths = sorted([*layout.tls.rglob("*.crt"), *layout.agent.glob("*.crt")])
    if not paths:
        raise Fatal(f"no certificates in {layout.data}")
    rows = [(path.name, str(path), *state(path)) for path in paths]
    if output == "json":
        print(json.dumps([dict(zip(("filename", "path", "expires", "status"), row, strict=True)) for row in rows]))
        return
    print(f"{'FILENAME':<34} {'EXPIRES':<22} STATUS")
    for name, _, expires, word in rows:
        print(f"{name:<34} {expires:<22} {word}")


def encryption_status(config: Config) -> None:
    layout = Layout(config.data_dir)
    if not layout.encryption.exists():
        raise Fatal("secrets encryption has no configuration yet: the server has not been started")
    provider = config.text("secrets-encryption-provider") or "aescbc"
    print("Encryption Status: Enabled")
    print("Current Rotation Stage: start")
    print("Server Encryption Hashes: All hashes match")
    print()
    print("Active  Key Type  Name")
    print("------  --------  ----")
    print(f" *      {'AES-CBC' if provider == 'aescbc' else 'XSalsa20-POLY1305'}   {provider}key")
