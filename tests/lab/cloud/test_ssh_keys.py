from __future__ import annotations

import subprocess

import pytest

from tests.lab.cloud.conftest import Api


def test_fingerprint_is_that_of_ssh_keygen(api: Api, public_key: str) -> None:
    key = api.post("/ssh_keys", {"name": "key", "public_key": public_key + "\n"})["ssh_key"]
    done = subprocess.run(
        ["ssh-keygen", "-l", "-E", "md5", "-f", "-"], input=public_key, text=True, capture_output=True, check=True
    )
    assert f"MD5:{key['fingerprint']}" == done.stdout.split()[1]
    assert [row["id"] for row in api.get("/ssh_keys", fingerprint=key["fingerprint"])["ssh_keys"]] == [key["id"]]
    assert api.get("/ssh_keys", fingerprint="00:11")["ssh_keys"] == []


def test_keys_and_names_are_unique(api: Api, public_keys: list[str]) -> None:
    api.post("/ssh_keys", {"name": "one", "public_key": public_keys[0]})
    status, payload = api("POST", "/ssh_keys", {"name": "two", "public_key": public_keys[0]})
    assert (status, payload["error"]["code"]) == (409, "uniqueness_error")
    assert payload["error"]["message"] == "SSH key with the same fingerprint already exists"
    assert payload["error"]["details"] == {"fields": [{"name": "public_key"}]}
    status, payload = api("POST", "/ssh_keys", {"name": "one", "public_key": public_keys[1]})
    assert (status, payload["error"]["message"]) == (409, "name is already used")


@pytest.mark.parametrize(
    "text",
    ["", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-rsa not-base64", "-----BEGIN OPENSSH PRIVATE KEY-----", "x y z"],
)
def test_invalid_keys(api: Api, text: str) -> None:
    assert api.code("POST", "/ssh_keys", {"name": "key", "public_key": text}) == "invalid_input"


def test_type_and_blob_must_agree(api: Api, public_key: str) -> None:
    text = public_key.replace("ssh-ed25519", "ssh-rsa", 1)
    assert api.code("POST", "/ssh_keys", {"name": "key", "public_key": text}) == "invalid_input"


def test_update_replaces_all_labels(api: Api, public_key: str) -> None:
    body = {"name": "key", "public_key": public_key, "labels": {"a": "1", "b": "2"}}
    path = f"/ssh_keys/{api.post('/ssh_keys', body)['ssh_key']['id']}"
    assert api.put(path, {"name": "new"})["ssh_key"]["labels"] == {"a": "1", "b": "2"}
    assert api.put(path, {"labels": {"c": "3"}})["ssh_key"]["labels"] == {"c": "3"}
    changed = api.put(path, {"labels": {}})["ssh_key"]
    assert (changed["name"], changed["labels"]) == ("new", {})
    assert api.put(path, {"name": "new"})["ssh_key"]["name"] == "new"
