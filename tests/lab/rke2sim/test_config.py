from pathlib import Path

import pytest

from lab.rke2sim.runtime import config
from lab.rke2sim.runtime.log import Fatal


def load(tmp_path: Path, text: str, role: str = "server", *arguments: str, lenient: bool = False) -> config.Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return config.load(role, ["--config", str(path), *arguments], lenient=lenient)


def test_later_documents_replace_and_append() -> None:
    merged = config.merge_documents(
        [{"tls-san": ["a"], "token": "one"}, {"tls-san+": ["b", "c"], "token": "two"}, {"tls-san+": "d", "debug": True}]
    )
    assert merged == {"tls-san": ["a", "b", "c", "d"], "token": ["two"], "debug": ["true"]}


def test_drop_ins_are_read_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "config.yaml.d"
    folder.mkdir()
    (folder / "20-b.yaml").write_text("node-label+: [c=d]\n")
    (folder / "10-a.yaml").write_text("node-label: [a=b]\nnode-name: late\n")
    (folder / "30-not.txt").write_text("nonsense: true\n")
    settings = load(tmp_path, "node-name: early\ntoken: x\n")
    assert settings.items("node-label") == ["a=b", "c=d"]
    assert settings.text("node-name") == "late"


def test_arguments_win_over_files(tmp_path: Path) -> None:
    settings = load(
        tmp_path, "token: file\netcd-s3: true\ntls-san: [a]\n", "server", "--token=argument", "--etcd-s3=false"
    )
    assert settings.text("token") == "argument"
    assert not settings.flag("etcd-s3", True)
    assert settings.items("tls-san") == ["a"]


@pytest.mark.parametrize(
    ("role", "text", "message"),
    [
        ("server", "tls-sans: [a]", "flag provided but not defined: -tls-sans"),
        ("agent", "tls-san: [a]", "flag provided but not defined: -tls-san"),
        ("server", "flannel-backend: none", "flag provided but not defined: -flannel-backend"),
        ("server", "debug: maybe", "invalid boolean value"),
        ("server", "etcd-snapshot-retention: many", "parse error"),
        ("server", "datastore-endpoint: mysql://x", "the simulation of RKE2 does not support --datastore-endpoint"),
        ("server", "disable-etcd: true", "the simulation of RKE2 does not support --disable-etcd"),
        ("server", "cni: weave", "Invalid value weave for --cni flag"),
        ("server", "cni: multus", "multus must be used alongside another primary cni"),
        ("server", "ingress-controller: ingress-nginx", "its ingress is Traefik's"),
        ("server", "profile: cis-1.23", "invalid value provided for --profile"),
        ("server", "secrets-encryption-provider: rot13", "unsupported secrets-encryption-provider"),
        ("server", "- a list", "it is not a mapping"),
        ("server", "a: [", "failed to parse config file"),
    ],
)
def test_invalid_and_unsupported_flags_are_fatal(tmp_path: Path, role: str, text: str, message: str) -> None:
    with pytest.raises(Fatal) as fault:
        load(tmp_path, text, role)
    assert message in str(fault.value)


def test_an_unsupported_flag_may_be_false(tmp_path: Path) -> None:
    assert not load(tmp_path, "disable-etcd: false").flag("disable-etcd")


def test_other_commands_skip_unknown_keys_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load(tmp_path, "nonsense: 1\ntoken: x\n", lenient=True)
    assert settings.text("token") == "x"
    assert "Unknown flag --nonsense found in config.yaml, skipping" in capsys.readouterr().err


def test_token_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    assert load(tmp_path, f"token-file: {tmp_path / 'token'}").secret("token") == "secret"


def test_component_arguments(tmp_path: Path) -> None:
    settings = load(tmp_path, "kube-controller-manager-arg: [node-monitor-grace-period=20s, a=b]")
    assert settings.component_arg("kube-controller-manager-arg", "node-monitor-grace-period", "40s") == "20s"
    assert settings.component_arg("kube-controller-manager-arg", "missing", "40s") == "40s"


def test_critical_values_have_their_defaults(tmp_path: Path) -> None:
    implicit = config.critical_values(load(tmp_path, "token: x"))
    explicit = config.critical_values(load(tmp_path, "cluster-cidr: 10.42.0.0/16\ncluster-domain: cluster.local\n"))
    assert implicit == explicit
    assert config.critical_values(load(tmp_path, "disable-kube-proxy: true")) != implicit
