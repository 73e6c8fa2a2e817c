"""The simulation of ceph-csi: the charts ceph-csi-rbd and ceph-csi-cephfs, and one image of both drivers."""

from __future__ import annotations

from pathlib import Path

from lab.charts.catalogue import Build, Chart, Image
from lab.charts.simulation import ENVIRONMENT, program, template

HERE = Path(__file__).parent
VERSION = "3.17.2"
DRIVERS = ("rbd", "cephfs")
DESCRIPTION = """\
apiVersion: v2
name: ceph-csi-{driver}
description: A simulation of ceph-csi's driver {driver}
version: {version}
appVersion: v{version}-simulation
"""


def charts(build: Build) -> list[Chart]:
    return [chart(driver) for driver in DRIVERS]


def chart(driver: str) -> Chart:
    files = template(HERE / "chart")
    files["Chart.yaml"] = DESCRIPTION.format(driver=driver, version=VERSION).encode()
    image = Image(
        f"quay.io/cephcsi/cephcsi:v{VERSION}-simulation",
        program(HERE / "driver.py"),
        {"Entrypoint": ["/usr/bin/python3", "-m", "lab.charts.ceph_csi.driver"], "Env": list(ENVIRONMENT)},
        base=True,
    )
    note = f"ceph-csi {VERSION} ({driver}) is a simulation: volumes are folders of a node"
    return Chart("ceph-csi", f"ceph-csi-{driver}", VERSION, files, (image,), simulation=True, note=note)
