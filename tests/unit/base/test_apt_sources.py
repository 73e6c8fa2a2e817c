"""Sources of Debian's archive that an image brings along, in both forms, and others that must stay."""

from __future__ import annotations

import pytest
from ansible_collections.slipway.platform.plugins.filter.apt_sources import apt_sources_disabled

OWN = "/etc/apt/sources.list.d/debian.sources"
DEBIAN = [
    "deb http://deb.debian.org/debian trixie main",
    "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://m.example/debian trixie main",
    "deb-src http://security.debian.org/debian-security trixie-security main contrib",
    "deb http://mirror.example.com/pub/debian/ stable main",
    "deb mirror+file:/etc/apt/mirrors/debian.list trixie-backports main",
    "deb http://security.debian.org/debian-security trixie/updates main",
]
OTHERS = [
    "deb https://apt.postgresql.org/pub/repos/apt trixie-pgdg main",
    "deb [signed-by=/etc/apt/keyrings/runner.gpg] https://packages.gitlab.com/runner/gitlab-runner/debian trixie main",
    "deb https://download.example.com/linux/debian trixie stable".replace("trixie", "noble"),
    "# deb http://deb.debian.org/debian trixie main",
    "deb http://deb.debian.org/debian sid main",
]
STANZA = "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: trixie\n trixie-updates\nComponents: main\n"


@pytest.mark.parametrize("line", DEBIAN)
def test_a_line_of_debian_is_disabled(line: str) -> None:
    path = "/etc/apt/sources.list.d/image.list"
    assert apt_sources_disabled({path: f"{line}\n"}, "trixie", OWN) == [
        {"path": f"{path}.disabled", "content": f"{line}\n"},
        {"path": path, "state": "absent"},
    ]


@pytest.mark.parametrize("line", OTHERS)
def test_other_lines_stay(line: str) -> None:
    path = "/etc/apt/sources.list"
    assert apt_sources_disabled({path: f"{line}\n"}, "trixie", OWN) == []
    both = f"{DEBIAN[0]}\n{OTHERS[0]}\n{line}\n"
    assert apt_sources_disabled({path: both}, "trixie", OWN)[1] == {"path": path, "content": f"{OTHERS[0]}\n{line}\n"}


def test_stanzas() -> None:
    path = "/etc/apt/sources.list.d/image.sources"
    other = (
        "Types: deb\nURIs: https://packages.example.com/debian\nSuites: trixie\nSigned-By: /etc/apt/keyrings/a.asc\n"
    )
    assert apt_sources_disabled({path: STANZA}, "trixie", OWN)[1] == {"path": path, "state": "absent"}
    assert apt_sources_disabled({path: other}, "trixie", OWN) == []
    assert apt_sources_disabled({path: f"{STANZA}Enabled: no\n"}, "trixie", OWN) == []
    mixed = apt_sources_disabled({path: f"# the image's\n{STANZA}\n{other}"}, "trixie", OWN)
    assert mixed[1] == {"path": path, "content": f"{other}\n"}
    # What remains is not changed again.
    assert apt_sources_disabled({path: mixed[1]["content"]}, "trixie", OWN) == []


def test_the_own_file_and_files_that_are_no_sources_stay() -> None:
    files = {OWN: STANZA, "/etc/apt/sources.list": None, "/usr/sbin/policy-rc.d": DEBIAN[0]}
    assert apt_sources_disabled(files, "trixie", OWN) == []
