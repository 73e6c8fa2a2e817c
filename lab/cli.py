"""The lab command line."""


def main() -> None:
    raise SystemExit("lab: not built yet")
