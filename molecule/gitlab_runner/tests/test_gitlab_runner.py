"""Jobs on the runner's host: what they reach, what they cannot, and what survives a restart."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from lab.gitlab.service import PROJECT, open_store
from lab.gitlab.store import FINAL, Artifact, Job, State, Store, Variable
from lab.runnersim import package
from lab.settings import Settings
from tests.support.deadlines import until
from tests.support.inventory import Inventory

testinfra_hosts = ["ansible://gitlab_runner"]

REPOSITORY = Path(__file__).resolve().parents[3]
SECRET = "correct-horse-battery"
METADATA = "169.254.169.254"
DEPLOY_ONLY = (
    "/etc/gitlab-runner",
    "/home/gitlab-runner",
    "/run/podman/podman.sock",
    "/opt/slipway",
    "/var/run/docker.sock",
)
"""Directories of deploy jobs, and sockets that would give access to them. The first three exist on the host."""


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """The store of the lab's GitLab, which the daemon serves."""
    opened = open_store(Settings.from_environment())
    yield opened
    opened.close()


def queue(store: Store, *script: str, **fields: object) -> Job:
    return store.queue(Job(name="probe", script=script, project=PROJECT, **fields))  # type: ignore[arg-type]


def deploy(store: Store, *script: str, **fields: object) -> Job:
    return queue(store, *script, tags=("deploy",), ref_protected=True, **fields)


def ended(store: Store, job: Job, seconds: float = 120) -> Job:
    return until(lambda: store.job(job.id), seconds, lambda job: job.state in FINAL)


def output(store: Store, job: Job) -> str:
    return store.trace(job.id).decode(errors="replace")


def connects(address: str, port: int) -> str:
    """A line of a job: prints `<address>:<port> open`, or closed, without a tool that an image may lack."""
    probe = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}' 2>/dev/null"
    return f"if {probe}; then echo '{address}:{port} open'; else echo '{address}:{port} closed'; fi"


def test_both_runners_are_online_in_the_declared_version(host: Host, store: Store, inventory: Inventory) -> None:
    online = {
        runner.description.rpartition(" ")[2]: store.managers(runner.id)
        for runner in store.runners()
        if store.managers(runner.id)
    }
    assert set(online) == {"build", "deploy"}
    assert {manager.version for managers in online.values() for manager in managers} == {"19.3.0-simulation"}
    system_id = host.file("/etc/gitlab-runner/.runner_system_id").content_string.strip()
    assert {manager.system_id for managers in online.values() for manager in managers} == {system_id}


def test_the_configuration_is_private_and_verified(host: Host) -> None:
    config = host.file("/etc/gitlab-runner/config.toml")
    assert (config.mode, config.user) == (0o600, "root")
    assert host.run("gitlab-runner verify").rc == 0
    # By a file of patterns: a token in an argument would be in the process list and in sudo's journal.
    patterns = "/run/tokens"
    host.check_output(f"umask 077; sed -n 's/^token = \"\\(.*\\)\"$/\\1/p' {config.path} >{patterns}")
    try:
        assert len(host.file(patterns).content_string.split()) == 2
        assert (
            host.run(f"grep --recursive --files-with-matches --fixed-strings --file={patterns} /var/log").stdout == ""
        )
        found = host.run(
            f"cat /proc/[0-9]*/cmdline 2>/dev/null | grep --count --text --fixed-strings --file={patterns}"
        )
        assert found.stdout.strip() == "0"
        assert host.run(f"journalctl --quiet | grep --count --fixed-strings --file={patterns}").stdout.strip() == "0"
    finally:
        host.check_output(f"rm {patterns}")


def test_a_deploy_job_runs_as_the_runners_user_and_reaches_other_hosts(store: Store, inventory: Inventory) -> None:
    target = inventory.address(inventory.group("load_balancer")[0])
    variables = (Variable("PASSWORD", SECRET, masked=True),)
    job = deploy(
        store,
        "id --user --name",
        "echo $PASSWORD >secret; ps -e -o args >processes",
        connects(target, 22),
        variables=variables,
        artifacts=(Artifact(paths=("processes",)),),
    )
    assert ended(store, job).state == State.SUCCESS, output(store, job)
    text = output(store, job)
    assert "\ngitlab-runner\n" in text and f"{target}:22 open" in text
    assert SECRET not in text
    archive = store.artifact(job.id)
    assert archive is not None and SECRET.encode() not in archive.read_bytes()


def test_a_build_job_is_isolated(host: Host, store: Store, inventory: Inventory) -> None:
    """Public addresses are reachable, as GitLab's; private ones, the metadata service and the host are not."""
    own = inventory.address(inventory.group("gitlab_runner")[0])
    other = inventory.address(inventory.group("load_balancer")[0])
    settings = Settings.from_environment()
    job = queue(
        store,
        connects(str(settings.machine_address), settings.gitlab_port),
        connects(own, 22),
        connects(own, 9252),
        connects(other, 22),
        connects(METADATA, 80),
        connects(str(settings.machine_address), settings.mirror_port),
        "grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status",
        # Controls: a file that exists in the container, and a variable of the job.
        *(f"test -e {path} && echo {path} found || echo {path} absent" for path in ("/etc/passwd", *DEPLOY_ONLY)),
        "env",
        variables=(Variable("OWN", "variable-of-the-job"),),
    )
    assert ended(store, job, 600).state == State.SUCCESS, output(store, job)
    text = output(store, job)
    assert f"{settings.machine_address}:{settings.gitlab_port} open" in text
    closed = [(own, 22), (own, 9252), (other, 22), (METADATA, 80), (settings.machine_address, settings.mirror_port)]
    assert [f"{address}:{port}" for address, port in closed if f"{address}:{port} closed" not in text] == []
    assert "CapEff:\t0000000000000000" in text and "NoNewPrivs:\t1" in text
    assert "/etc/passwd found" in text
    assert [path for path in DEPLOY_ONLY if f"{path} absent" not in text] == []
    assert [path for path in DEPLOY_ONLY[:3] if not host.file(path).exists] == []
    assert "OWN=variable-of-the-job" in text
    tokens = host.check_output("sed -n 's/^token = \"\\(.*\\)\"$/\\1/p' /etc/gitlab-runner/config.toml").split()
    assert len(tokens) == 2 and [token[:9] for token in tokens if token in text] == []
    # The host itself reaches the metadata service: only the firewall keeps jobs from it.
    assert host.run(f"curl --silent --fail --max-time 5 http://{METADATA}/hetzner/v1/metadata/instance-id").rc == 0


def test_a_build_job_has_limits(host: Host, store: Store) -> None:
    job = queue(store, "echo started", "exec sleep 60")
    until(lambda: "\nstarted" in output(store, job), 120)
    name = host.check_output("podman ps --format '{{.Names}}' --filter name=runner-")
    limits = host.check_output(
        f"podman inspect {name} --format '{{{{.HostConfig.Memory}}}} {{{{.HostConfig.NanoCpus}}}}'"
    )
    store.cancel(job.id)
    assert limits == f"{2048 * 1024 * 1024} 2000000000"
    assert ended(store, job).state == State.CANCELED
    until(lambda: host.check_output("podman ps --quiet --all --filter name=runner-"), 60, lambda ids: ids == "")


def test_an_undeclared_image_is_refused(store: Store) -> None:
    job = queue(store, "true", image="docker.io/library/other:1")
    assert ended(store, job).failure_reason == "runner_system_failure"
    assert "is not present on list of allowed images" in output(store, job)


def test_an_unprotected_branch_gets_no_deploy_runner(store: Store) -> None:
    waiting = queue(store, "true", tags=("deploy",))
    following = deploy(store, "true")
    assert ended(store, following).state == State.SUCCESS
    assert store.job(waiting.id).state == State.PENDING
    store.cancel(waiting.id)


def test_a_reload_ends_no_job_and_a_restart_waits_for_it(host: Host, store: Store) -> None:
    job = deploy(store, "echo started", "while [ ! -e /tmp/proceed ]; do sleep 0.2; done", "rm -f /tmp/proceed")
    host.run("rm -f /tmp/proceed")
    until(lambda: "\nstarted" in output(store, job), 60)
    host.check_output("systemctl reload gitlab-runner")
    host.check_output("systemctl restart --no-block gitlab-runner")
    until(lambda: host.run("systemctl show --property=ActiveState --value gitlab-runner").stdout.strip(), 30,
          lambda state: state == "deactivating")  # fmt: skip
    assert store.job(job.id).state == State.RUNNING
    host.check_output("runuser --user gitlab-runner -- touch /tmp/proceed")
    assert ended(store, job).state == State.SUCCESS, output(store, job)
    until(lambda: host.run("systemctl is-active gitlab-runner").stdout.strip(), 60, lambda state: state == "active")
    assert ended(store, deploy(store, "true")).state == State.SUCCESS


def test_metrics_are_served_on_the_private_address_alone(host: Host, inventory: Inventory) -> None:
    own = inventory.address(inventory.group("gitlab_runner")[0])
    assert "gitlab_runner_version_info" in host.check_output(f"curl --silent --fail http://{own}:9252/metrics")
    listeners = host.check_output("ss --listening --tcp --numeric --no-header sport = :9252").split()
    assert f"{own}:9252" in listeners and "0.0.0.0:9252" not in listeners


def converge(inventory: Inventory, **options: object) -> subprocess.CompletedProcess[str]:
    """The play with other options."""
    folder = str(inventory.settings["platform_inventory"])
    given = json.dumps({f"gitlab_runner_{name}": value for name, value in options.items()})
    return subprocess.run(
        ["ansible-playbook", "playbooks/gitlab_runner.yml", "-i", folder, "--extra-vars", given],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip


def binary(version: str, checksum: str) -> dict[str, str]:
    settings = Settings.from_environment()
    mirror = f"https://{settings.machine_address}:{settings.mirror_port}{package.PUBLIC_PATH}"
    url = f"{mirror}/binaries/gitlab-runner-{version}"
    return {"source": "binary", "version": version, "binary_url": url, "binary_checksum": checksum}


@pytest.mark.scenario("another version of the runner")
def test_a_binary_is_installed_only_with_its_checksum(host: Host, store: Store, inventory: Inventory) -> None:
    newest, earlier = package.VERSIONS
    checksums = {version: hashlib.sha256(package.program(version)).hexdigest() for version in package.VERSIONS}
    program = host.file("/usr/bin/gitlab-runner")
    assert program.sha256sum == checksums[newest]

    rejected = converge(inventory, **binary(earlier, "0" * 64))
    assert rejected.returncode == 2 and "did not match" in " ".join(rejected.stdout.split()), rejected.stdout
    assert program.sha256sum == checksums[newest]
    assert ended(store, deploy(store, "true")).state == State.SUCCESS

    try:
        installed = converge(inventory, **binary(earlier, checksums[earlier]))
        assert installed.returncode == 0, installed.stdout
        assert program.sha256sum == checksums[earlier]
        job = ended(store, deploy(store, "true"))
        assert job.state == State.SUCCESS and f"gitlab-runner {earlier}" in output(store, job)
        assert "changed=0" in converge(inventory, **binary(earlier, checksums[earlier])).stdout
    finally:
        restored = converge(inventory, **binary(newest, checksums[newest]))
    assert restored.returncode == 0, restored.stdout


@pytest.mark.scenario("another executor of deploy jobs")
def test_deploy_jobs_run_in_containers_of_one_image(host: Host, store: Store, inventory: Inventory) -> None:
    target = inventory.address(inventory.group("load_balancer")[0])
    config = tomllib.loads(host.file("/etc/gitlab-runner/config.toml").content_string)
    image = config["runners"][0]["docker"]["image"]
    volume = "/srv/deploy-state"
    host.check_output(f"mkdir --parents {volume} && echo kept > {volume}/file")
    try:
        done = converge(
            inventory, deploy_executor="docker", deploy_image=image, deploy_volumes=[f"{volume}:{volume}:ro"]
        )
        assert done.returncode == 0, done.stdout
        job = deploy(
            store,
            connects(target, 22),
            f"cat {volume}/file; touch {volume}/other || echo read-only",
            "grep CapEff /proc/self/status; test -e /etc/gitlab-runner || echo contained",
        )
        assert ended(store, job, 600).state == State.SUCCESS, output(store, job)
        text = output(store, job)
        assert f"Using Docker executor with image {image}" in text and f"{target}:22 open" in text
        assert "\nkept\n" in text and "\nread-only\n" in text and "\ncontained\n" in text
        assert "CapEff:\t0000000000000000" in text
        other = deploy(store, "true", image="docker.io/library/other:1")
        assert ended(store, other).failure_reason == "runner_system_failure"
    finally:
        restored = converge(inventory)
        host.check_output(f"rm --recursive {volume}")
    assert restored.returncode == 0, restored.stdout
    assert "Using Shell (bash) executor" in output(store, ended(store, deploy(store, "true")))


def test_unused_images_are_pruned_by_the_timer(host: Host) -> None:
    assert host.service("gitlab-runner-prune.timer").is_enabled
    host.check_output("systemctl start gitlab-runner-prune.service")
    assert host.check_output("systemctl show --property=Result --value gitlab-runner-prune.service") == "success"
    # The network of build jobs is unused between jobs, and none can run without it.
    assert "gitlab-build" in host.check_output("podman network ls --format '{{.Name}}'").split()
