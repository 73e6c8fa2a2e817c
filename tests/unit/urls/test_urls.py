"""URLs of hosts with an address of either family."""

from __future__ import annotations

import re

import pytest
from ansible_collections.slipway.platform.plugins.filter.urls import https_url
from ansible_collections.slipway.platform.plugins.module_utils.urls import server_fault

from tests.static.repository import REPOSITORY


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("203.0.113.7", "https://203.0.113.7:6443"),
        ("2001:db8::1", "https://[2001:db8::1]:6443"),
        ("api.example.com", "https://api.example.com:6443"),
    ],
)
def test_an_address_of_ipv6_gets_brackets(host: str, url: str) -> None:
    assert https_url(host, 6443) == url
    assert server_fault(url) == ""


@pytest.mark.parametrize(
    "url", ["https://2001:db8::1:6443", "https://:6443", "https://lb", "http://lb:6443", "lb:6443"]
)
def test_a_url_that_no_client_could_use(url: str) -> None:
    assert server_fault(url) == f"{url!r} is not the URL of a server, such as https://203.0.113.7:6443"


def test_no_url_is_composed_of_an_address_without_the_filter() -> None:
    composed = re.compile(
        r"""https?://['"]? *(?:~ *|\{\{ ?|\{)[^}~]*(?:address|ansible_host|_ip)\b[^}]*(?:~ *['"]:|\}\}?:)"""
    )
    folders = ("roles", "playbooks", "collections/ansible_collections/slipway/platform/plugins")
    found = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for folder in folders
        for path in sorted((REPOSITORY / folder).rglob("*"))
        if path.suffix in {".yml", ".j2", ".py"} and path.is_file()
        for line in path.read_text().splitlines()
        if composed.search(line)
    ]
    assert found == []
    assert composed.search("https://{{ hostvars['a'].ansible_host }}:6443")
    assert composed.search("{'server': 'https://' ~ rke2_registration_address ~ ':9345'}")
    assert composed.search('f"https://{address}:6443"')
