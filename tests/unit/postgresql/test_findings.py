"""What verify says of a database, from what its host saw."""

from __future__ import annotations

from ansible_collections.slipway.platform.plugins.filter.verify import database_findings


def test_a_database_that_serves_has_no_findings() -> None:
    hostvars = {
        "db": {
            "__verify_database": {"rc": 0, "stdout": ""},
            "__verify_database_handshakes": {"results": [{"rc": 0, "__verify_port": 5432}]},
        }
    }
    assert database_findings(hostvars, ["db"]) == []


def test_everything_that_is_wrong_is_named() -> None:
    expired = "140\nverify error:num=10:certificate has expired\n"
    hostvars = {
        "gone": {"__verify_database": {"unreachable": True}},
        "new": {},
        "down": {"__verify_database": {"rc": 2, "stderr": "psql: error: no such file"}},
        "unsaved": {
            "__verify_database": {"rc": 0, "stdout": ""},
            "__verify_database_backups": {"rc": 0, "stdout": "the newest backup is 30 hours old\n"},
        },
        "lame": {
            "__verify_database": {"rc": 0, "stdout": ""},
            "__verify_database_backups": {"rc": 1, "stderr": "no such user"},
        },
        "sick": {
            "__verify_database": {"rc": 0, "stdout": "fsync is off\nits data has no checksums\n"},
            "__verify_database_handshakes": {"results": [{"rc": 1, "stderr": expired, "__verify_port": 6432}]},
            "__verify_database_certificate": {
                "rc": 1,
                "stdout": "notAfter=Nov 25 10:00:00 2026 GMT\nCertificate will expire\n",
            },
        },
    }
    assert database_findings(hostvars, list(hostvars)) == [
        "gone cannot be reached by SSH",
        "the database on new does not answer (it was not part of this run)",
        "the database on down does not answer (psql: error: no such file)",
        "backups of the database on unsaved: the newest backup is 30 hours old",
        "backups of the database on lame: no such user",
        "the database on sick: fsync is off",
        "the database on sick: its data has no checksums",
        "port 6432 of sick cannot be believed by clients (verify error:num=10:certificate has expired)",
        "the certificate of the database on sick expires on Nov 25 10:00:00 2026 GMT; run playbooks/postgresql.yml",
    ]
