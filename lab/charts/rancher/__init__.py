"""The simulation of Rancher: its chart, and an image of its server in Python, in a few versions."""

from __future__ import annotations

from pathlib import Path

from lab.charts.catalogue import Build, Chart, Image
from lab.charts.simulation import ENVIRONMENT, program, template

HERE = Path(__file__).parent
VERSIONS = {"2.15.0": "< 1.37.0-0", "2.15.1": "< 1.37.0-0", "2.16.0": "< 1.38.0-0"}
"""Version → the versions of Kubernetes that its official chart accepts."""
DESCRIPTION = """\
apiVersion: v2
name: rancher
description: A simulation of Rancher's server
version: {version}
appVersion: v{version}-simulation
kubeVersion: "{kubernetes}"
"""


def charts(build: Build) -> list[Chart]:
    return [chart(version, kubernetes) for version, kubernetes in VERSIONS.items()]


def chart(version: str, kubernetes: str) -> Chart:
    files = template(HERE / "chart")
    files["Chart.yaml"] = DESCRIPTION.format(version=version, kubernetes=kubernetes).encode()
    image = Image(
        f"docker.io/rancher/rancher:v{version}-simulation",
        program(HERE / "server.py"),
        {
            "Entrypoint": ["/usr/bin/python3", "-m", "lab.charts.rancher.server"],
            "Env": [*ENVIRONMENT, f"CATTLE_SERVER_VERSION=v{version}-simulation"],
        },
        base=True,
    )
    note = f"Rancher {version} is a simulation"
    return Chart("rancher", "rancher", version, files, (image,), simulation=True, note=note)
