"""Entry point of bin/rke2: extract the runtime to the data directory, as RKE2 does, and run the command."""

import importlib
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

ARCHIVE = Path(sys.argv[0])


def chosen_data_dir(arguments: list[str]) -> Path:
    """--data-dir from the command line or config.yaml, without a YAML parser, which is not extracted yet."""
    for position, word in enumerate(arguments):
        if word.startswith("--data-dir="):
            return Path(word.partition("=")[2])
        if word in ("--data-dir", "-d") and position + 1 < len(arguments):
            return Path(arguments[position + 1])
    main = Path("/etc/rancher/rke2/config.yaml")
    for config in (main, *sorted(Path(f"{main}.d").glob("*.y*ml"))):
        try:
            lines = config.read_text().splitlines()
        except (FileNotFoundError, PermissionError):  # commands that need no root need no data directory
            continue
        for line in lines:
            if line.startswith("data-dir:"):
                return Path(line.partition(":")[2].split(" #")[0].strip().strip("\"'"))
    return Path(os.environ.get("RKE2_DATA_DIR", "/var/lib/rancher/rke2"))


def in_use(folder: Path) -> bool:
    mark = f"{folder}/".encode()
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in cmdline.read_bytes():
                return True
        except OSError:
            continue
    return False


def stage(release: dict[str, Any], data: Path) -> Path:
    """Extract to <data-dir>/data/<tag>-<hash> once, link <data-dir>/bin to it, remove unused older versions."""
    folder = data / "data" / f"{release['version'].replace('+', '-')}-{release['digest'][:12]}"
    if not (folder / ".extracted").exists():
        print(f"Extracting the runtime to {folder}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        with zipfile.ZipFile(ARCHIVE) as archive:
            for item in archive.infolist():
                if item.filename.startswith(("bin/", "lib/", "charts/")):
                    path = Path(archive.extract(item, folder))
                    if item.filename.startswith("bin/"):
                        path.chmod(0o755)
        (folder / "charts").mkdir(exist_ok=True)
        (folder / ".extracted").touch()
    link = data / "bin"
    if not link.is_symlink() or link.readlink() != folder / "bin":
        fresh = data / ".bin.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(folder / "bin")
        fresh.rename(link)
    for other in (data / "data").iterdir():
        if other != folder and not in_use(other):
            shutil.rmtree(other, ignore_errors=True)
    return folder


def main() -> int:
    with zipfile.ZipFile(ARCHIVE) as archive:
        text = archive.read("release.json").decode()
    data = chosen_data_dir(sys.argv[2:])
    if sys.argv[1:2] in (["server"], ["agent"]) and not {"-h", "--help"} & set(sys.argv):
        library = stage(json.loads(text), data) / "lib"
        sys.path.insert(0, str(library))
    else:
        sys.path.insert(0, str(ARCHIVE / "lib"))
    os.environ["PATH"] = f"{data / 'bin'}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"
    command = importlib.import_module("rke2sim.cli")
    return int(command.main(text))


if __name__ == "__main__":
    sys.exit(main())
