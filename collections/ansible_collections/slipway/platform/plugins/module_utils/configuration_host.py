"""The host of module_utils/configuration.py, as a module on it reads and changes it."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import socket
import ssl
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.slipway.platform.plugins.module_utils.configuration import (
    UNFINISHED,
    ConfigurationError,
    FileState,
    Folder,
    FolderState,
    Probe,
    Result,
    staged_path,
)
from ansible_collections.slipway.platform.plugins.module_utils.postgresql_tls import request_tls

STATE_FOLDER = Path("/var/lib/slipway")
# In memory, and readable by root alone.
STAGING_FOLDER = Path("/run")


class RealHost:
    """The host that the module runs on."""

    def __init__(self, module: Any, name: str) -> None:
        self.module = module
        self.records = STATE_FOLDER / name
        self.staging = tempfile.mkdtemp(prefix="slipway-staging-", dir=STAGING_FOLDER)
        # For parent directories and files that commands create, independent of the umask that sudo sets.
        os.umask(0o022)

    def close(self) -> None:
        """Remove the staging directory."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def read(self, path: str) -> FileState | None:
        try:
            found = Path(path).lstat()
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise ConfigurationError(f"{path} cannot be written: a part of its path is a file") from error
        if stat.S_ISDIR(found.st_mode):
            raise ConfigurationError(f"{path} is a directory, but should be a file. Move the directory")
        link, content = "", b""
        if stat.S_ISLNK(found.st_mode):
            link = str(Path(path).readlink())
        else:
            content = Path(path).read_bytes()
        return FileState(content, stat.S_IMODE(found.st_mode), _user(found.st_uid), _group(found.st_gid), link)

    def read_folder(self, path: str) -> FolderState | None:
        try:
            found = Path(path).stat()
        except FileNotFoundError:
            return None
        return FolderState(stat.S_IMODE(found.st_mode), _user(found.st_uid), _group(found.st_gid))

    def list_files(self, folder: str) -> list[str]:
        try:
            with os.scandir(folder) as entries:
                return [entry.path for entry in entries if not entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def write(self, path: str, state: FileState) -> None:
        target = Path(path)
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if state.link or target.is_symlink():
            self.remove(path)
        if state.link:
            target.symlink_to(state.link)
            return
        with tempfile.NamedTemporaryFile(dir=self.staging, delete=False) as file:
            file.write(state.content)
        try:
            Path(file.name).chmod(state.mode)
            shutil.chown(file.name, state.owner, state.group)
        except LookupError as error:
            raise ConfigurationError(
                f"the owner of {path} cannot be set to {state.owner}:{state.group}: {error}"
            ) from error
        # atomic_move keeps mode and owner of a replaced file, so both are set again.
        self.module.atomic_move(file.name, path, unsafe_writes=True)
        target.chmod(state.mode)
        shutil.chown(path, state.owner, state.group)

    def remove(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def make_folder(self, folder: Folder) -> None:
        Path(folder.path).mkdir(mode=0o755, parents=True, exist_ok=True)
        Path(folder.path).chmod(folder.mode)
        shutil.chown(folder.path, folder.owner, folder.group)

    def staged(self, path: str) -> str:
        return staged_path(self.staging, path)

    def stage(self, path: str, content: bytes) -> str:
        staged = Path(self.staged(path))
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(content)
        staged.chmod(0o600)
        return str(staged)

    def run(self, command: Sequence[str]) -> Result:
        program = self.module.get_bin_path(command[0], opt_dirs=["/usr/sbin", "/sbin"])
        if program is None:
            return Result(None, f"the program {command[0]} is not installed")
        code, out, err = self.module.run_command([program, *command[1:]], environ_update={"LC_ALL": "C.UTF-8"})
        return Result(code, out + err)

    def probe(self, probe: Probe) -> str | None:
        return probe_port(probe)

    def _record(self, unit: str, kind: str) -> Path:
        return self.records / f"{unit}.{kind}.json"

    def read_record(self, unit: str, kind: str = UNFINISHED) -> str | None:
        try:
            return self._record(unit, kind).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def list_records(self, kind: str) -> list[str]:
        """Units with a record of this kind, the oldest record first."""
        records = sorted(self.records.glob(f"*.{kind}.json"), key=lambda record: record.stat().st_mtime)
        return [record.name.removesuffix(f".{kind}.json") for record in records]

    def write_record(self, unit: str, text: str, kind: str = UNFINISHED) -> None:
        self.records.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self.records / f"{unit}.new"
        new.touch(mode=0o600)
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._record(unit, kind))

    def remove_record(self, unit: str, kind: str = UNFINISHED) -> None:
        self._record(unit, kind).unlink(missing_ok=True)


def probe_port(probe: Probe) -> str | None:
    """Connect, with a handshake if required. Return the fault, or None."""
    try:
        with socket.create_connection((probe.address, probe.port), timeout=3) as connection:
            if not probe.tls:
                return None
            if probe.starttls == "postgres" and not request_tls(connection):
                return f"{probe} offers no TLS"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            # The certificate is compared with the file, which is stricter than a verification of its chain.
            context.verify_mode = ssl.CERT_NONE
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            with context.wrap_socket(connection, server_hostname=probe.server_name or None) as channel:
                presented = channel.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        return f"{probe} rejects a TLS 1.3 handshake for {probe.server_name or 'no name'}: {error.reason or error}"
    except OSError as error:
        reason = "no listener" if error.errno == errno.ECONNREFUSED else str(error)
        return f"{probe} does not answer: {reason}"
    if not probe.certificate_path:
        return None
    try:
        text = Path(probe.certificate_path).read_text(encoding="ascii")
        first = text[text.index("-----BEGIN CERTIFICATE") :].split("-----END CERTIFICATE-----")[0]
        expected = ssl.PEM_cert_to_DER_cert(first + "-----END CERTIFICATE-----\n")
    except (OSError, ValueError) as error:
        return f"the certificate {probe.certificate_path} cannot be read: {error}"
    if presented != expected:
        return f"{probe} presents another certificate for {probe.server_name} than {probe.certificate_path}"
    return None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
