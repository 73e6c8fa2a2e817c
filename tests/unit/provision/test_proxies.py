"""Local addresses are requested directly, also where only a proxy is set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.slipway.platform.plugins.module_utils.proxies import bypass, is_local

from tests.lab.cloud.conftest import TOKEN, serving
from tests.playbooks import run_playbook


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[fd00::1]", "10.40.1.10", "198.19.255.17"])
def test_local_addresses(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize("host", ["api.hetzner.cloud", "1.1.1.1", "2606:4700::1111", ""])
def test_addresses_that_a_proxy_reaches(host: str) -> None:
    assert not is_local(host)


def test_what_a_person_set_is_kept() -> None:
    environment = {"https_proxy": "http://p:1", "NO_PROXY": "example.com, 10.0.0.1"}
    bypass(environment, ["10.0.0.1", "203.0.113.7"])
    assert environment["no_proxy"] == environment["NO_PROXY"]
    assert environment["no_proxy"].split(",") == [
        *("example.com", "10.0.0.1", "localhost", "127.0.0.1", "::1", "203.0.113.7")
    ]


def test_nothing_is_set_without_a_proxy_or_where_all_is_direct() -> None:
    environment = {"HOME": "/root"}
    bypass(environment, ["203.0.113.7"])
    assert environment == {"HOME": "/root"}
    environment = {"HTTP_PROXY": "http://p:1", "no_proxy": "*"}
    bypass(environment, ["203.0.113.7"])
    assert environment["no_proxy"] == "*"


def test_inventory_and_modules_reach_a_local_cloud_past_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # no listener
    with serving(tmp_path / "cloud") as lab:
        (tmp_path / "hcloud.yml").write_text(
            json.dumps(
                {
                    "plugin": "slipway.platform.hcloud",
                    "environment": "trial",
                    "api_token": TOKEN,
                    "api_endpoint": lab.endpoint,
                }
            )
        )
        task = {"hetzner.hcloud.location_info": {"api_token": TOKEN, "api_endpoint": lab.endpoint}}
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}
        play["vars"] = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        (tmp_path / "play.yml").write_text(json.dumps([play]))
        code, output = run_playbook(tmp_path, tmp_path / "hcloud.yml", tmp_path / "play.yml")
        assert code == 0, output
        assert "No addresses of servers are known" not in output
