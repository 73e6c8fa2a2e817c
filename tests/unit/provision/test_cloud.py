"""Reading the API: pages, patience with passing failures, errors as one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from ansible_collections.slipway.platform.plugins.inventory.hcloud import address, addresses, variables, volumes_of
from ansible_collections.slipway.platform.plugins.module_utils.cloud import Cloud, CloudError
from ansible_collections.slipway.platform.plugins.plugin_utils.inventory import read_plays

Answer = tuple[int, Any]
REPOSITORY = Path(__file__).resolve().parents[3]


@contextmanager
def serving(answer: Callable[[str, dict[str, list[str]]], Answer]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlparse(self.path)
            status, body = answer(parts.path, parse_qs(parts.query))
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with listening(Handler) as endpoint:
        yield endpoint


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def failure(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def test_all_pages_are_read() -> None:
    def answer(path: str, query: dict[str, list[str]]) -> Answer:
        page = int(query["page"][0])
        assert (path, query["per_page"], query["label_selector"]) == ("/v1/servers", ["50"], ["a=b"])
        return 200, {"servers": [{"id": page}], "meta": {"pagination": {"next_page": page + 1 if page < 3 else None}}}

    with serving(answer) as endpoint:
        found = Cloud(endpoint, "t").list("servers", [("label_selector", "a=b")])
    assert [thing["id"] for thing in found] == [1, 2, 3]


def test_a_server_that_repeats_itself_ends() -> None:
    page = {"servers": [], "meta": {"pagination": {"next_page": 1}}}
    with serving(lambda *_: (200, page)) as endpoint:
        assert Cloud(endpoint, "t").list("servers") == []


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_passing_failures_are_tried_again(status: int) -> None:
    answers = [(status, failure("busy", "busy")), (status, b""), (200, {"servers": [{"id": 1}]})]
    slept: list[float] = []
    with serving(lambda *_: answers.pop(0)) as endpoint:
        assert Cloud(endpoint, "t", sleep=slept.append).list("servers") == [{"id": 1}]
    assert slept == [1.0, 2.0]


def test_a_persistent_error_is_reported_after_the_retries() -> None:
    slept: list[float] = []
    with (
        serving(lambda *_: (429, failure("rate_limit_exceeded", "Limit reached"))) as endpoint,
        pytest.raises(CloudError, match=r"answers Limit reached \(rate_limit_exceeded\); run again later"),
    ):
        Cloud(endpoint, "t", sleep=slept.append).list("servers")
    assert slept == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("answer", "message", "code"),
    [
        (
            (401, failure("unauthorized", "token is invalid")),
            "does not accept the token (token is invalid)",
            "unauthorized",
        ),
        ((403, failure("forbidden", "no")), "answers no (forbidden)", "forbidden"),
        ((404, b"<html>"), "answers Not Found (404)", "404"),
        ((200, b"<html>"), "is no Hetzner Cloud API", ""),
        ((200, []), "is no Hetzner Cloud API", ""),
    ],
)
def test_errors_are_one_sentence(answer: Answer, message: str, code: str) -> None:
    with serving(lambda *_: answer) as endpoint, pytest.raises(CloudError) as caught:
        Cloud(endpoint, "hunter2").list("servers")
    assert message in str(caught.value)
    assert caught.value.code == code
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "token", "message"),
    [
        ("http://127.0.0.1:9/v1", "t", "cannot be reached"),
        ("ftp://127.0.0.1/v1", "t", "is no http(s) address"),
        ("http://127.0.0.1:9/v1", "", "platform_hcloud_token is empty"),
        ("http://127.0.0.1:9/v1", "hunter2\n", "holds a space, a newline"),
        ("http://127.0.0.1:9/v1", "hunter2 ", "holds a space, a newline"),
    ],
)
def test_requests_that_cannot_be_sent(endpoint: str, token: str, message: str) -> None:
    with pytest.raises(CloudError) as caught:
        Cloud(endpoint, token).get("servers")
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_interrupted_response_is_retried() -> None:
    class Handler(BaseHTTPRequestHandler):
        tries = 0

        def do_GET(self) -> None:
            Handler.tries += 1
            content = b'{"servers": []}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + (Handler.tries == 1)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    slept: list[float] = []
    with listening(Handler) as endpoint:
        assert Cloud(endpoint, "t", sleep=slept.append).list("servers") == []
    assert slept == [1.0]


@pytest.mark.parametrize(
    ("public", "where", "name"),
    [
        (
            {"ipv4": {"ip": "198.51.100.1", "dns_ptr": "s3.test"}, "ipv6": {"ip": "2001:db8::/64", "dns_ptr": []}},
            "198.51.100.1",
            "s3.test",
        ),
        ({"ipv4": {"ip": "198.51.100.1", "dns_ptr": None}, "ipv6": None}, "198.51.100.1", ""),
        (
            {
                "ipv4": None,
                "ipv6": {
                    "ip": "2001:db8:1::/64",
                    "dns_ptr": [
                        {"ip": "2001:db8:1::2", "dns_ptr": "other.test"},
                        {"ip": "2001:db8:1:0::1", "dns_ptr": "s3.test"},
                    ],
                },
            },
            "2001:db8:1::1",
            "s3.test",
        ),
        ({"ipv4": None, "ipv6": {"ip": "2001:db8:1::/64", "dns_ptr": []}}, "2001:db8:1::1", ""),
        ({"ipv4": None, "ipv6": None}, None, ""),
    ],
)
def test_address_of_a_server_and_its_name(public: dict[str, Any], where: str | None, name: str) -> None:
    server = {
        "id": 7,
        "status": "running",
        "server_type": {"name": "cx23"},
        "location": {"name": "fsn1"},
        "public_net": public,
    }
    assert address(server) == where
    assert variables(server, []).get("ansible_host") == where
    assert variables(server, [])["hcloud_dns_ptr"] == name


def test_both_addresses_of_a_server_are_known() -> None:
    public = {"ipv4": {"ip": "198.51.100.1"}, "ipv6": {"ip": "2001:db8:1::/64"}}
    assert addresses({"public_net": public}) == ["198.51.100.1", "2001:db8:1::1"]


def test_volumes_of_a_server_by_their_own_name() -> None:
    volumes = [
        {"id": 5, "name": "dev-a-ceph", "size": 20, "server": 7, "linux_device": "/dev/disk/by-id/scsi-0HC_Volume_5"},
        {"id": 6, "name": "dev-b-ceph", "size": 20, "server": 8, "linux_device": "/dev/disk/by-id/scsi-0HC_Volume_6"},
        {"id": 4, "name": "dev-a-x", "size": 10, "server": None, "linux_device": "/dev/disk/by-id/scsi-0HC_Volume_4"},
    ]
    assert volumes_of({"id": 7, "name": "dev-a"}, volumes) == {
        "ceph": {"id": 5, "size_gb": 20, "path": "/dev/disk/by-id/scsi-0HC_Volume_5"}
    }


SERVER = {
    "id": 7,
    "name": "prod-lb-1",
    "status": "running",
    "server_type": {"name": "cx23"},
    "location": {"name": "fsn1"},
    "public_net": {"ipv4": {"ip": "203.0.113.7"}, "ipv6": None},
}


def read_inventory(folder: Path, answer: Callable[[str, dict[str, list[str]]], Answer]) -> tuple[dict[str, Any], str]:
    """What ansible-inventory knows of the host, and its warnings."""
    with serving(answer) as endpoint:
        content = f"plugin: slipway.platform.hcloud\nenvironment: prod\napi_endpoint: {endpoint}\napi_token: t\n"
        (folder / "hcloud.yml").write_text(content)
        (folder / "hosts.yml").write_text("all: {hosts: {prod-lb-1: {}}}\n")
        done = subprocess.run(
            ["ansible-inventory", "-i", str(folder), "--host", "prod-lb-1"],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    return json.loads(done.stdout), " ".join(done.stderr.split())


def listed(path: str, _: dict[str, list[str]]) -> Answer:
    return 200, {"servers": [SERVER]} if path.endswith("/servers") else {"volumes": []}


def test_cached_addresses_are_used_while_the_api_is_unreachable(tmp_path: Path) -> None:
    found, warned = read_inventory(tmp_path, listed)
    assert found["ansible_host"] == "203.0.113.7" and warned == ""
    later, warned = read_inventory(tmp_path, lambda *_: (500, failure("server_error", "out of order")))
    assert later == found
    assert re.search(r"Addresses of servers are those of 20\d\d-.* UTC: .*out of order", warned)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / ".state").iterdir()] == [0o600]


def test_a_service_without_hosts_is_an_empty_group(tmp_path: Path) -> None:
    (tmp_path / "hcloud.yml").write_text("{plugin: slipway.platform.hcloud, environment: prod}\n")
    (tmp_path / "hosts.yml").write_text("all: {children: {ceph: {hosts: {prod-ceph-1: {}}}}}\n")
    done = subprocess.run(
        ["ansible", "localhost", "-i", str(tmp_path), "-m", "debug", "-a", "msg={{ groups }}"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "HCLOUD_TOKEN": "", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )  # fmt: skip
    groups = json.loads(done.stdout.partition("=>")[2])["msg"]
    assert groups["ceph"] == ["prod-ceph-1"]
    services = {group for play in read_plays(REPOSITORY / "playbooks") for group in play.groups}
    assert services - {"all", "localhost"} <= set(groups)


@pytest.mark.parametrize(
    ("network", "expected"),
    [("private", {"a": "10.0.0.2", "s": "203.0.113.3"}), ("public", {"a": "203.0.113.2", "s": "203.0.113.3"})],
)
def test_the_object_storage_is_reached_by_its_public_address(
    tmp_path: Path, network: str, expected: dict[str, str]
) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").symlink_to(REPOSITORY / "inventories/defaults.yml")
    (tmp_path / "hosts.yml").write_text("""
all:
  children:
    ceph: {hosts: {a: {provision_private_ip: 10.0.0.2, ansible_host: 203.0.113.2}}}
    object_storage: {hosts: {s: {provision_private_ip: 10.0.0.3, ansible_host: 203.0.113.3}}}
""")
    done = subprocess.run(
        ["ansible", "all", "-i", str(tmp_path / "hosts.yml"), "-m", "debug", "-a", "var=ansible_ssh_host"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "SLIPWAY_CONTROLLER_NETWORK": network, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )  # fmt: skip
    found = dict(re.findall(r"^(\w+) \|.*?\"ansible_ssh_host\": \"([0-9.]+)\"", done.stdout, re.M | re.S))
    assert found == expected, done.stdout


@pytest.mark.parametrize("network", ["private", "public"])
def test_the_controller_needs_no_address_of_its_own(network: str) -> None:
    done = subprocess.run(
        ["ansible", "localhost", "-i", "inventories/prod", "-m", "ping"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "HCLOUD_TOKEN": "", "SLIPWAY_CONTROLLER_NETWORK": network},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_token_that_is_refused_gets_no_older_answer(tmp_path: Path) -> None:
    read_inventory(tmp_path, listed)
    found, warned = read_inventory(tmp_path, lambda *_: (401, failure("unauthorized", "unable to authenticate")))
    assert "ansible_host" not in found and "No addresses of servers are known" in warned


def test_without_a_cache_a_warning_is_printed(tmp_path: Path) -> None:
    (tmp_path / ".state").write_text("no folder, so nothing can be kept")
    assert read_inventory(tmp_path, listed)[0]["ansible_host"] == "203.0.113.7"
    found, warned = read_inventory(tmp_path, lambda *_: (500, failure("server_error", "out of order")))
    assert "ansible_host" not in found and "No addresses of servers are known" in warned
