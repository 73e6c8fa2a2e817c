from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lab.rke2sim.runtime import s3, snapshots
from lab.rke2sim.runtime.log import Fatal


@pytest.mark.parametrize(
    ("expression", "moment", "expected"),
    [
        ("0 */12 * * *", datetime(2026, 11, 21, 12, 0, tzinfo=UTC), True),
        ("0 */12 * * *", datetime(2026, 11, 21, 13, 0, tzinfo=UTC), False),
        ("*/5 * * * *", datetime(2026, 11, 21, 13, 35, tzinfo=UTC), True),
        ("5,10-12 3 * * *", datetime(2026, 11, 21, 3, 11, tzinfo=UTC), True),
        ("0 0 * * 7", datetime(2026, 11, 22, 0, 0, tzinfo=UTC), True),
        ("0 0 1 * 6", datetime(2026, 11, 21, 0, 0, tzinfo=UTC), True),
        ("0 0 1 * *", datetime(2026, 11, 21, 0, 0, tzinfo=UTC), False),
        ("10/20 * * * *", datetime(2026, 11, 21, 0, 30, tzinfo=UTC), True),
    ],
)
def test_cron(expression: str, moment: datetime, expected: bool) -> None:
    assert snapshots.cron_matches(expression, moment) is expected


@pytest.mark.parametrize("expression", ["* * * *", "61 * * * *", "a * * * *", "5-1 * * * *"])
def test_malformed_cron(expression: str) -> None:
    with pytest.raises(Fatal):
        snapshots.cron_matches(expression, datetime.now(UTC))


def test_flags_of_the_command_are_the_servers_without_prefix() -> None:
    flags, words, output = snapshots._translate(
        ["one", "--s3", "--s3-bucket=b", "--name", "n", "two", "-o", "json", "--snapshot-retention=3"]
    )
    assert flags == ["--etcd-s3", "--etcd-s3-bucket=b", "--etcd-snapshot-name=n", "--etcd-snapshot-retention=3"]
    assert words == ["one", "two"]
    assert output == "json"


def test_signature_equals_botocores() -> None:
    stamp, digest = "20261121T050607Z", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    headers = {"host": "s3.test", "x-amz-date": stamp, "x-amz-content-sha256": digest, "x-amz-meta-node": "n 1"}
    query = {"list-type": "2", "prefix": "a b/c~d", "delimiter": "/"}
    header = s3.sign(
        "GET", "/bucket/folder/a%20b", query, headers, digest, region="fsn1", access_key="AK", secret_key="SK"
    )
    url = "https://s3.test/bucket/folder/a%20b?" + s3.canonical_query(query)
    request = AWSRequest("GET", url, headers={k: v for k, v in headers.items() if k != "host"})
    request.context["timestamp"] = stamp
    auth = S3SigV4Auth(Credentials("AK", "SK"), "s3", "fsn1")
    canonical = auth.canonical_request(request)
    expected_signature = auth.signature(auth.string_to_sign(request, canonical), request)
    assert header.endswith(f"Signature={expected_signature}")
