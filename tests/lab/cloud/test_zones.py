from __future__ import annotations

import time
from typing import Any

import pytest

from lab.cloud.wire.zones import NAMESERVERS
from tests.lab.cloud.conftest import Api, Lab

A = {"name": "www", "type": "A", "records": [{"value": "198.51.100.1", "comment": "first"}, {"value": "198.51.100.2"}]}
SOA = "@ SOA hydrogen.ns.hetzner.com. dns.hetzner.com. 2025032100 86400 10800 3600000 3600\n"
NS = "".join(f"@ IN NS {name}\n" for name in NAMESERVERS)


def create(api: Api, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = api.post("/zones", {"name": "example.com", "mode": "primary"} | more)["zone"]
    return made


def rrsets(api: Api, **query: Any) -> dict[str, list[str]]:
    rows = api.get("/zones/example.com/rrsets", **query)["rrsets"]
    return {row["id"]: [record["value"] for record in row["records"]] for row in rows}


def serial(api: Api) -> int:
    [soa] = rrsets(api)["@/SOA"]
    return int(soa.split()[2])


def test_a_new_zone_has_its_own_records(api: Api) -> None:
    zone = create(api, ttl=10800, labels={"a": "b"})
    assert (zone["mode"], zone["ttl"], zone["status"], zone["registrar"]) == ("primary", 10800, "ok", "other")
    assert (zone["record_count"], zone["primary_nameservers"]) == (4, [])
    assert zone["authoritative_nameservers"]["assigned"] == list(NAMESERVERS)
    assert rrsets(api)["@/NS"] == list(NAMESERVERS)
    assert str(serial(api))[:8] == time.strftime("%Y%m%d", time.gmtime())
    assert api.get(f"/zones/{zone['id']}") == api.get("/zones/example.com") == {"zone": zone}
    assert api.put("/zones/example.com", {"labels": {"c": "d"}})["zone"]["labels"] == {"c": "d"}
    assert [row["id"] for row in api.get("/zones", mode="primary", name="example.com")["zones"]] == [zone["id"]]
    assert api.get("/zones", mode="secondary")["zones"] == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "example.co.uk"}, None),
        ({"name": "xn--bcher-kva.de"}, None),
        ({"name": "example.com."}, "invalid_input"),
        ({"name": "Example.com"}, "invalid_input"),
        ({"name": "bücher.de"}, "invalid_input"),
        ({"name": "www.example.com"}, "invalid_input"),
        ({"name": "com"}, "invalid_input"),
        ({"name": "example.local"}, "invalid_input"),
        ({"name": "192.0.2.1"}, "invalid_input"),
        ({"mode": "tertiary"}, "invalid_input"),
        ({"mode": None}, "invalid_input"),
        ({"ttl": 59}, "invalid_input"),
        ({"ttl": 2147483648}, "invalid_input"),
        ({"mode": "secondary"}, "invalid_input"),
        ({"mode": "secondary", "primary_nameservers": [{"address": "ns.example.com"}]}, "invalid_input"),
        ({"mode": "secondary", "primary_nameservers": [{"address": "192.0.2.1"}] * 2}, "invalid_input"),
        ({"mode": "secondary", "primary_nameservers": [{"address": "192.0.2.1", "tsig_key": "a"}]}, "invalid_input"),
        ({"rrsets": [A]}, None),
        ({"rrsets": [A, A]}, "uniqueness_error"),
        ({"rrsets": [A], "zonefile": ""}, "invalid_input"),
        ({"zonefile": "www IN A 192.0.2"}, "invalid_input"),
    ],
)
def test_creating(api: Api, change: dict[str, Any], code: str | None) -> None:
    status, payload = api("POST", "/zones", {"name": "example.com", "mode": "primary"} | change)
    assert status == 201 if code is None else payload["error"]["code"] == code
    assert len(api.get("/zones")["zones"]) == (code is None)


def test_secondary_zones_have_no_records_of_their_own(api: Api) -> None:
    first = {"address": "203.0.113.1", "tsig_key": "c2VjcmV0", "tsig_algorithm": "hmac-sha256"}
    zone = create(api, mode="secondary", primary_nameservers=[first])
    assert zone["primary_nameservers"] == [first | {"port": 53}]
    path = "/zones/example.com"
    second = [{"address": "2001:db8::53", "port": 5353}]
    api.post(f"{path}/actions/change_primary_nameservers", {"primary_nameservers": second})
    assert api.get(path)["zone"]["primary_nameservers"] == second
    for method, operation, body in (
        ("GET", "/zonefile", None),
        ("GET", "/rrsets", None),
        ("GET", "/rrsets/@/A", None),
        ("POST", "/rrsets", A),
        ("POST", "/actions/change_ttl", {"ttl": 60}),
        ("POST", "/actions/import_zonefile", {"zonefile": SOA + NS}),
        ("POST", "/rrsets/www/A/actions/add_records", {"records": [{"value": "192.0.2.1"}]}),
    ):
        assert api.code(method, f"{path}{operation}", body) == "incorrect_zone_mode", operation
    api.delete(path)
    create(api)
    body = {"primary_nameservers": second}
    assert api.code("POST", f"{path}/actions/change_primary_nameservers", body) == "incorrect_zone_mode"


def test_life_of_a_record_set(api: Api) -> None:
    zone = create(api)
    before = serial(api)
    made = api.post("/zones/example.com/rrsets", A | {"ttl": 300, "labels": {"a": "b"}})
    path = "/zones/example.com/rrsets/www/A"
    assert made["rrset"] == api.get(path)["rrset"] == {
        "id": "www/A", "name": "www", "type": "A", "ttl": 300, "labels": {"a": "b"}, "zone": zone["id"],
        "protection": {"change": False},
        "records": [{"value": "198.51.100.1", "comment": "first"}, {"value": "198.51.100.2", "comment": ""}],
    }  # fmt: skip
    assert made["action"]["resources"] == [{"id": zone["id"], "type": "zone"}]
    assert serial(api) == before + 1
    assert api.code("POST", "/zones/example.com/rrsets", A) == "uniqueness_error"
    assert rrsets(api, type="A", label_selector="a=b") == {"www/A": ["198.51.100.1", "198.51.100.2"]}
    assert rrsets(api, label_selector="a!=b") == {}, "sets without the label do not match either"
    assert set(rrsets(api, label_selector="a!=c")) == {"www/A"}
    assert set(rrsets(api, label_selector="!a")) == {"@/SOA", "@/NS"}
    assert api.put(path, {"labels": {}})["rrset"]["labels"] == {}

    api.post(f"{path}/actions/change_ttl", {"ttl": None})
    assert api.get(path)["rrset"]["ttl"] is None
    api.post(f"{path}/actions/add_records", {"ttl": 60, "records": [{"value": "198.51.100.3"}]})
    assert (api.get(path)["rrset"]["ttl"], len(rrsets(api)["www/A"])) == (60, 3)
    conflict = {"ttl": 61, "records": [{"value": "198.51.100.4"}]}
    assert api.code("POST", f"{path}/actions/add_records", conflict) == "invalid_input"
    api.post(f"{path}/actions/update_records", {"records": [{"value": "198.51.100.3", "comment": "third"}]})
    assert [record["comment"] for record in api.get(path)["rrset"]["records"]] == ["first", "", "third"]
    unknown = {"records": [{"value": "198.51.100.9", "comment": ""}]}
    for verb in ("update_records", "remove_records"):
        assert api.code("POST", f"{path}/actions/{verb}", unknown) == "invalid_input"
    api.post(f"{path}/actions/set_records", {"records": [{"value": "198.51.100.7"}]})
    api.post(f"{path}/actions/remove_records", {"records": [{"value": "198.51.100.7"}]})
    assert api.code("GET", path) == "not_found", "a set ends with its last record"
    api.post("/zones/example.com/rrsets/db/AAAA/actions/add_records", {"records": [{"value": "2001:db8::1"}]})
    api.delete("/zones/example.com/rrsets/db/AAAA")
    assert set(rrsets(api)) == {"@/SOA", "@/NS"}
    assert api.code("DELETE", "/zones/example.com/rrsets/@/SOA") == "invalid_input"


@pytest.mark.parametrize(
    ("written", "increased"),
    [
        ("ns. admin. ( 4000000000 1 2 3 4 )", "ns. admin. 4000000001 1 2 3 4"),
        ("ns admin 4294967295 1 2 3 4", "ns admin 0 1 2 3 4"),
    ],
)
def test_the_serial_of_a_changed_zone_is_increased(api: Api, written: str, increased: str) -> None:
    create(api)
    path = "/zones/example.com/rrsets"
    assert api.code("DELETE", f"{path}/@/SOA") == "invalid_input"
    api.post(f"{path}/@/SOA/actions/set_records", {"records": [{"value": written}]})
    assert rrsets(api)["@/SOA"] == [increased]
    before = serial(api)
    api.post(path, A)
    assert serial(api) > before


def test_protection(api: Api) -> None:
    create(api, rrsets=[A])
    zone, path = "/zones/example.com", "/zones/example.com/rrsets/www/A"
    api.post(f"{path}/actions/change_protection", {"change": True})
    record = {"records": [{"value": "198.51.100.1", "comment": ""}]}
    for method, operation, body in (
        ("DELETE", path, None),
        ("POST", f"{path}/actions/change_ttl", {"ttl": 60}),
        ("POST", f"{path}/actions/set_records", record),
        ("POST", f"{path}/actions/add_records", {"records": [{"value": "198.51.100.9"}]}),
        ("POST", f"{path}/actions/remove_records", record),
        ("POST", f"{path}/actions/update_records", record),
        ("POST", f"{zone}/actions/import_zonefile", {"zonefile": SOA + NS}),
        ("DELETE", zone, None),
    ):
        status, payload = api(method, operation, body)
        assert (status, payload["error"]["message"]) == (423, "RRSet(s) is/are change protected"), operation
    api.post(f"{path}/actions/change_protection", {"change": False})
    api.post(f"{zone}/actions/change_protection", {"delete": True})
    assert api.message("DELETE", zone) == "zone deletion is protected"
    api.post(f"{zone}/actions/change_protection", {"delete": False})
    assert api.delete(zone)["action"]["command"] == "delete_zone"
    assert api.get("/zones")["zones"] == []


@pytest.mark.parametrize(
    ("type", "good", "bad"),
    [
        ("A", "192.0.2.1", ["192.0.2", "2001:db8::1", "a.example.com.", "192.0.2.1 ; comment", ""]),
        ("AAAA", "2001:db8::1", ["192.0.2.1", "2001:db8::g"]),
        ("CAA", '0 issue "letsencrypt.org"', ["issue letsencrypt.org", '256 issue "a"']),
        ("CNAME", "web.example.com.", ["a b", "a..b.", "x" * 64 + "."]),
        ("DS", f"60485 5 2 {'AB' * 32}", ["60485 5 2 XY", "60485"]),
        ("HINFO", '"cpu" "os"', ['"cpu"']),
        ("HTTPS", '1 . alpn="h2"', ["x .", '1 . alpn="h2" alpn="h3"']),
        ("MX", "10 mail.example.com.", ["mail.example.com.", "65536 mail", "10"]),
        ("NS", "ns.example.net.", ["ns example"]),
        ("PTR", "host", ["a b"]),
        ("RP", "admin.example.com. txt.example.com.", ["admin.example.com."]),
        ("SRV", "0 5 5060 sip", ["0 5 sip", "0 5 65536 sip"]),
        ("SVCB", "1 svc.example.com. port=8443", ["1 svc.example.com. port=65536"]),
        ("TLSA", f"3 1 1 {'ab' * 32}", ["3 1 1 zz", "3 1"]),
        ("TXT", '"v=spf1 -all" "b"', ["v=spf1 -all", '"' + "a" * 256 + '"', '"a', "\\# 2 0161"]),
    ],
)
def test_values_of_records(api: Api, type: str, good: str, bad: list[str]) -> None:
    create(api)
    path = "/zones/example.com/rrsets"
    for value in bad:
        body = {"name": "x", "type": type, "records": [{"value": value}]}
        status, payload = api("POST", path, body)
        assert (status, payload["error"]["code"]) == (422, "invalid_input"), value
        assert payload["error"]["details"]["fields"][0]["name"] == "records"
    api.post(path, {"name": "x", "type": type, "records": [{"value": good}]})
    assert api.get(f"{path}/x/{type}")["rrset"]["records"] == [{"value": good, "comment": ""}]
    for value in bad:
        body = {"records": [{"value": value}]}
        assert api.code("POST", f"{path}/x/{type}/actions/set_records", body) == "invalid_input"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "www.example.com"},
        {"name": "WWW"},
        {"name": "www."},
        {"name": "a..b"},
        {"name": "x" * 64},
        {"name": "a.*"},
        {"type": "SPF"},
        {"type": "SOA"},
        {"ttl": 59},
        {"records": []},
        {"records": [{"value": "192.0.2.1"}, {"value": "192.0.2.1"}]},
        {"name": "@", "type": "CNAME", "records": [{"value": "example.net."}]},
        {"name": "old", "records": [{"value": "192.0.2.1"}]},
        {"type": "CNAME", "records": [{"value": "example.net."}]},
        {"name": "new", "type": "CNAME", "records": [{"value": "a.example.net."}, {"value": "b.example.net."}]},
    ],
)
def test_invalid_record_sets(api: Api, change: dict[str, Any]) -> None:
    create(api, rrsets=[A, {"name": "old", "type": "CNAME", "records": [{"value": "www"}]}])
    body = {"name": "www", "type": "AAAA", "records": [{"value": "2001:db8::1"}]} | change
    assert api.code("POST", "/zones/example.com/rrsets", body) == "invalid_input"
    assert len(rrsets(api)) == 4


def test_zone_files(api: Api) -> None:
    text = (
        "$ORIGIN\texample.com.\n$TTL\t600\n; a comment\n@ 300 IN CAA 0 issue \"letsencrypt.org\"\n"
        "@ A 198.51.100.1\n@ A 198.51.100.2\nwww IN CNAME example.com.\n*.apps 60 AAAA 2001:db8::1\n"
        "text TXT ( \"a\"\n \"b\" )\n"
    )  # fmt: skip
    zone = create(api, zonefile=text)
    wanted = {
        "@/NS": list(NAMESERVERS), "@/CAA": ['0 issue "letsencrypt.org"'], "@/A": ["198.51.100.1", "198.51.100.2"],
        "www/CNAME": ["example.com."], "*.apps/AAAA": ["2001:db8::1"], "text/TXT": ['"a" "b"'],
    }  # fmt: skip
    assert {id: values for id, values in rrsets(api).items() if id != "@/SOA"} == wanted
    rows = {row["id"]: row["ttl"] for row in api.get("/zones/example.com/rrsets")["rrsets"]}
    assert (zone["ttl"], rows["@/CAA"], rows["@/A"], rows["*.apps/AAAA"]) == (600, 300, None, 60)

    exported = api.get("/zones/example.com/zonefile")["zonefile"]
    before = rrsets(api)
    api.post("/zones/example.com/actions/import_zonefile", {"zonefile": exported})
    assert rrsets(api) == before, "an export can be imported"
    api.post("/zones/example.com/actions/import_zonefile", {"zonefile": SOA + NS + "$TTL 900\nnew A 192.0.2.1"})
    assert set(rrsets(api)) == {"@/SOA", "@/NS", "new/A"}
    assert api.get("/zones/example.com")["zone"]["ttl"] == 900


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NS, "has no SOA record"),
        (SOA, "has no NS record of hydrogen.ns.hetzner.com."),
        (SOA + NS + "$ORIGIN example.net.\n", "$ORIGIN example.net. is not example.com."),
        (SOA + NS + "www CH A 192.0.2.1\n", "not valid"),
        (SOA + NS + "$INCLUDE /etc/passwd\n", "not valid"),
        (SOA + NS + "www IN NAPTR 1 1 a b c .\n", "NAPTR"),
        (SOA + NS + "www IN A 192.0.2.1\nwww IN CNAME a\n", "CNAME"),
    ],
)
def test_invalid_zone_files(api: Api, text: str, words: str) -> None:
    create(api, rrsets=[A])
    before = rrsets(api)
    assert words in api.message("POST", "/zones/example.com/actions/import_zonefile", {"zonefile": text})
    assert rrsets(api) == before


def test_a_page_has_up_to_a_hundred_record_sets(lab: Lab) -> None:
    sets = [{"name": f"h{number}", "type": "A", "records": [{"value": "192.0.2.1"}]} for number in range(110)]
    create(lab.api, rrsets=sets)
    assert len(rrsets(lab.api, per_page=100)) == len(rrsets(lab.api, per_page=500)) == 100
