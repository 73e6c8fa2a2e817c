"""config.toml and .runner_system_id. A key that the simulation does not know is refused; GitLab Runner ignores it."""

from __future__ import annotations

import os
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_PATH = Path("/etc/gitlab-runner/config.toml")
EXECUTORS = ("shell", "docker")

KEYS: Mapping[str, frozenset[str]] = {
    "": frozenset(
        {"concurrent", "check_interval", "shutdown_timeout", "connection_max_age", "listen_address", "log_level"}
        | {"log_format", "session_server", "runners"}
    ),
    "session_server": frozenset({"session_timeout"}),
    "runners": frozenset(
        {"name", "url", "id", "token", "token_obtained_at", "token_expires_at", "tls-ca-file", "executor", "shell"}
        | {"builds_dir", "cache_dir", "limit", "request_concurrency", "output_limit", "environment", "docker", "cache"}
    ),
    "runners.docker": frozenset(
        {"host", "image", "privileged", "allowed_images", "allowed_services", "pull_policy", "allowed_pull_policies"}
        | {
            "cap_drop",
            "cap_add",
            "security_opt",
            "memory",
            "memory_swap",
            "cpus",
            "network_mode",
            "user",
            "userns_mode",
        }
        | {"services_limit", "disable_cache", "volumes", "tls_verify", "shm_size", "disable_entrypoint_overwrite"}
        | {"oom_kill_disable"}
    ),
    # The simulation has no cache: jobs run without it.
    "runners.cache": frozenset({"Type", "Path", "Shared", "MaxUploadedArchiveSize", "s3"}),
    "runners.cache.s3": frozenset(
        {"ServerAddress", "AccessKey", "SecretKey", "BucketName", "BucketLocation", "Insecure", "PathStyle"}
        | {"AuthenticationType", "ServerSideEncryption"}
    ),
}


class ConfigError(Exception):
    """config.toml cannot be used. One sentence for the operator."""


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """One [[runners]] table."""

    name: str
    url: str
    token: str
    executor: str
    settings: Mapping[str, Any]

    @property
    def short_token(self) -> str:
        """The part of a token that GitLab Runner prints."""
        return self.token.removeprefix("glrt-")[:9]

    @property
    def docker(self) -> Mapping[str, Any]:
        docker: Mapping[str, Any] = self.settings.get("docker", {})
        return docker

    @property
    def limit(self) -> int:
        return int(self.settings.get("limit", 0))


@dataclass(frozen=True, slots=True)
class Config:
    path: Path
    settings: Mapping[str, Any]
    runners: tuple[RunnerConfig, ...]

    @property
    def concurrent(self) -> int:
        return int(self.settings.get("concurrent", 1))

    @property
    def check_seconds(self) -> float:
        """GitLab Runner treats 0 as its default of 3 seconds."""
        return float(self.settings.get("check_interval", 0) or 3)

    @property
    def shutdown_seconds(self) -> float:
        return float(self.settings.get("shutdown_timeout", 0) or 30)


def read(path: Path) -> Config:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        settings = {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    _require_known_keys(path, "", settings)
    runners = tuple(_runner(path, table) for table in settings.get("runners", []))
    return Config(path, settings, runners)


def _runner(path: Path, table: Mapping[str, Any]) -> RunnerConfig:
    for key in ("url", "token", "executor"):
        if not table.get(key):
            raise ConfigError(f"{path}: a runner has no {key}")
    if table["executor"] not in EXECUTORS:
        raise ConfigError(f"{path}: executor {table['executor']!r} is not implemented by the simulation")
    return RunnerConfig(str(table.get("name", "")), table["url"].rstrip("/"), table["token"], table["executor"], table)


def _require_known_keys(path: Path, table: str, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if key not in KEYS[table]:
            raise ConfigError(f"{path}: {key!r} of [{table or 'top level'}] is not implemented by the simulation")
        name = f"{table}.{key}" if table else key
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                _require_known_keys(path, name, part)


def remove_runners(config: Config, names: frozenset[str]) -> None:
    """Write config.toml without these runners."""
    kept = [table for table in config.settings.get("runners", []) if table.get("name", "") not in names]
    lines = _table("", {**config.settings, "runners": kept})
    fresh = config.path.with_name(f".{config.path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    fresh.replace(config.path)


def _table(name: str, table: Mapping[str, Any]) -> list[str]:
    lines, below = [], []
    for key, value in table.items():
        path = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            below += [f"[{path}]", *_table(path, value)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                below += [f"[[{path}]]", *_table(path, item)]
        elif not (isinstance(value, list) and key == "runners"):
            lines.append(f"{key} = {_value(value)}")
    return lines + below


def _value(value: Any) -> str:
    import json

    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    # TOML's basic strings and JSON's agree on their escapes.
    return json.dumps(value, ensure_ascii=False)


def system_id(config: Path) -> str:
    """The identity of this installation, created beside config.toml when it is missing."""
    path = config.with_name(".runner_system_id")
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        id = f"s_{secrets.token_hex(6)}"
        path.write_text(id, encoding="ascii")
        path.chmod(0o600)
        return id
