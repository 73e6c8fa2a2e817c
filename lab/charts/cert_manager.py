"""cert-manager: the chart of its Go module; controllers and CA injector are real, the webhook is a simulation.

The chart is unchanged but for the label of a simulation on the webhook's Deployment, which `verify` reports.
"""

from __future__ import annotations

import re

from lab.charts.catalogue import Build, Chart, Image
from lab.kubernetes.build import module_version
from lab.kubernetes.images import Link

MODULE = "github.com/cert-manager/cert-manager"
WEBHOOK, LABELS = "templates/webhook-deployment.yaml", "\n  labels:\n"
PROGRAMS = ("controller", "cainjector", "webhook")


def charts(build: Build) -> list[Chart]:
    version = module_version(MODULE)
    folder = build.charts / "cert-manager"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    described = files["Chart.yaml"].decode()
    # As upstream's release tool does.
    files["Chart.yaml"] = re.sub(r"(?m)^(version|appVersion): .*$", rf"\1: {version}", described).encode()
    webhook = files[WEBHOOK].decode()
    if LABELS not in webhook:
        raise ValueError(f"{folder / WEBHOOK}: has no labels of the Deployment. Adapt lab/charts/cert_manager.py.")
    files[WEBHOOK] = webhook.replace(LABELS, f'{LABELS}    slipway.dev/simulation: "true"\n', 1).encode()
    images = tuple(
        Image(
            f"quay.io/jetstack/cert-manager-{program}:{version}",
            {
                "app/cert-manager": build.programs / "cert-manager",
                **{f"app/{name}": Link("cert-manager") for name in PROGRAMS},
            },
            {"Entrypoint": [f"/app/{program}"], "User": "1000"},
        )
        for program in PROGRAMS
    )
    note = f"cert-manager {version}: chart, controllers (no ACME) and CA injector are real, its webhook is a simulation"
    return [Chart("jetstack", "cert-manager", version, files, images, simulation=True, note=note)]
