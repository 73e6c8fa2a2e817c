"""What the charts of simulations in Python have in common."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
FOLDER = "usr/lib/simulation"
ENVIRONMENT = (f"PYTHONPATH=/{FOLDER}", "PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED=1")


def program(path: Path) -> dict[str, bytes | Path]:
    """The files of an image that runs a module of this package; it may import the client beside it."""
    root = HERE.parents[1]
    return {f"{FOLDER}/{file.relative_to(root)}": file for file in (HERE / "client.py", path)}


def template(folder: Path) -> dict[str, bytes]:
    """The files of a chart but Chart.yaml, which has the version."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
