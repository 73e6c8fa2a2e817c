"""Named formats of options: what the program that reads a value accepts. `meta/formats.yml` of a role names them."""

from __future__ import annotations

import base64
import binascii
import re
import struct
import tomllib
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from urllib.parse import urlsplit

from ..postgresql import MAJORS, NAME

Problem = tuple[str, str]
"""What is wrong, as the end of a sentence that begins with the value, and the remedy, a sentence."""
Format = Callable[[str], Problem | None]

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DOMAIN = re.compile(rf"({LABEL.pattern}\.)+[a-z]([-a-z0-9]{{0,61}}[a-z0-9])?")
PEM = re.compile(r"-----BEGIN (?P<kind>[A-Z ]+)-----\s+[A-Za-z0-9+/=\s]+-----END (?P=kind)-----\s*")
KEY_PLACEHOLDER = re.compile(r"replace|change.?me|placeholder|your[-_ ]|x{6}|[<>]|\.\.\.|…", re.I)
KEY_TYPES = re.compile(
    r"ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com"
)
SHORTEST_RSA_BITS = 3072
SHORTEST_SECRET, LONGEST_SECRET = 32, 256
FEWEST_DIFFERENT = 10
"""Distinct characters; a random token of 32 characters has many more, a repeated word fewer."""
# Only patterns that random text does not contain: one token in 500 contains "xxx".
PLACEHOLDER = re.compile(r"replace|change.?me|placeholder|example|\btodo\b|your[-_ ]|secret|password|x{6}|<.*>", re.I)
LONGEST_DOMAIN = 253
LONGEST_SERVED_NAME = 109
"""With it, a name of nginx.conf fits into server_names_hash_bucket_size 128."""
LONGEST_PATH, LONGEST_FILE_NAME = 1024, 255


def matching(title: str, example: str, pattern: str, longest: int = 253) -> Format:
    """A format that a pattern describes."""
    compiled = re.compile(pattern)

    def check(text: str) -> Problem | None:
        if len(text) > longest:
            return f"has {len(text)} characters", f"Use at most {longest}."
        return None if compiled.fullmatch(text) else (f"is no {title}", f"Write one like {example}.")

    return check


def parsed(title: str, example: str, parse: Callable[[str], object]) -> Format:
    """A format whose parser raises ValueError."""

    def check(text: str) -> Problem | None:
        try:
            parse(text)
        except ValueError:
            return f"is no {title}", f"Write one like {example}."
        return None

    return check


def either(*formats: Format) -> Format:
    """The last one words the fault."""

    def check(text: str) -> Problem | None:
        problems = [form(text) for form in formats]
        return None if None in problems else problems[-1]

    return check


# Names and addresses

dns_name = matching("DNS name", "app.example.com", DOMAIN.pattern, LONGEST_DOMAIN)
dns_label = matching("DNS label", "app-1", LABEL.pattern, 63)
address = parsed("IP address", "10.40.1.10", ip_address)
host = either(address, dns_label, dns_name)


def platform_domain(text: str) -> Problem | None:
    # A host's name and a dot are put before it.
    return matching("DNS name", "apps.example.com", DOMAIN.pattern, LONGEST_DOMAIN - 64)(text)


def served_name(text: str) -> Problem | None:
    if "*" in text.removeprefix("*."):
        return "is no name that NGINX serves", "Use * only as the whole first part, like *.apps.example.com."
    return matching("DNS name", "*.apps.example.com", rf"(\*\.)?{DOMAIN.pattern}", LONGEST_SERVED_NAME)(text)


def cidr4(text: str) -> Problem | None:
    try:
        if "/" not in text:
            raise ValueError("no mask")
        IPv4Network(text)
    except ValueError:
        try:
            network = IPv4Network(text, strict=False)
        except ValueError:
            return "is no IPv4 range", "Write one like 10.40.0.0/16."
        return ("has bits beyond its mask" if "/" in text else "has no mask"), f"Write {network}."
    return None


def cidr(text: str) -> Problem | None:
    try:
        if "/" not in text:
            raise ValueError("Hetzner's firewalls require a mask")
        ip_network(text)
    except ValueError:
        return "is no CIDR range", "Write one like 198.51.100.0/24, one machine as 198.51.100.7/32."
    return None


def listen_address(text: str) -> Problem | None:
    """IPv6 in brackets, as NGINX reads it."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        if (ip_address(inner).version == 6) == (inner != text):
            return None
    except ValueError:
        pass
    return "is no address to listen on", "Write an IPv4 address, or an IPv6 address in brackets, like [::]."


def link(*schemes: str, path: str = "") -> Format:
    """A URL without credentials, query or blanks."""
    example = f"{schemes[-1]}://example.com{path or '/folder'}"

    def check(text: str) -> Problem | None:
        problem = "is no URL of the kind " + " or ".join(f"{scheme}://" for scheme in schemes)
        remedy = f"Write one like {example}."
        if len(text) > LONGEST_PATH or not re.fullmatch(r"[A-Za-z][a-z]*://[\w.:%~/+,=@\[\]-]+", text, re.A):
            return problem, remedy
        try:
            parts = urlsplit(text)
            named = parts.hostname or ""
            _ = parts.port
        except ValueError:
            return problem, remedy
        if parts.scheme not in schemes or "@" in parts.netloc or host(named) is not None:
            return problem, remedy
        return (f"does not end in {path}", remedy) if path and not parts.path.endswith(path) else None

    return check


# Files and accounts


def path(text: str) -> Problem | None:
    parts = text.split("/")
    if (
        len(text) > LONGEST_PATH
        or max(map(len, parts)) > LONGEST_FILE_NAME
        or not re.fullmatch(r"[\w./+:,~@-]([\w ./+:,~@-]*[\w./+:,~@-])?", text)
    ):
        return "is no path", "Write one of letters, digits and / . _ - + : , ~ @, like /var/lib/example."
    return ("leads upwards", "Write it without `..`.") if ".." in parts else None


def absolute_path(text: str) -> Problem | None:
    if not text.startswith("/"):
        return "is no absolute path", "Write one like /etc/ssl/example.pem."
    return path(text)


ACCOUNT = r"[a-z_][-a-z0-9_]{0,30}"


def ordinary_account(text: str) -> Problem | None:
    if text == "root":
        return "is the superuser", "Name an ordinary user, not root."
    return matching("account name", "deploy", ACCOUNT, 31)(text)


# Keys and secrets


def certificate(text: str) -> Problem | None:
    match = PEM.fullmatch(text.strip() + "\n")
    if match is None or not match["kind"].endswith("CERTIFICATE"):
        return "is no certificate in PEM form", "Copy the whole file, from -----BEGIN to -----END."
    return None


def private_key(text: str) -> Problem | None:
    match = PEM.fullmatch(text.strip() + "\n")
    if match is None or not match["kind"].endswith("PRIVATE KEY"):
        return "is no private key in PEM form", "Remove it and run create_secrets, which generates one."
    return None


def secret(text: str) -> Problem | None:
    """A secret of files and arguments of programs, as create_secrets generates it."""
    if PLACEHOLDER.search(text):
        return "is a placeholder", "Remove it and run create_secrets, which generates one."
    if len(text) < SHORTEST_SECRET or len(set(text)) < FEWEST_DIFFERENT:
        return (
            f"can be guessed ({len(text)} characters, {len(set(text))} of them different)",
            f"Use {SHORTEST_SECRET} random characters or more.",
        )
    if len(text) > LONGEST_SECRET or not re.fullmatch(r"[\w.~+/=:@%^,-]+", text, re.A):
        return "has characters that programs interpret, or is too long", "Use 32 to 256 letters and digits."
    return None


def password(text: str) -> Problem | None:
    """SCRAM verifiers of anything but printable ASCII depend on the client's encoding."""
    if len(text) > LONGEST_SECRET or not (text.isascii() and text.isprintable()):
        return "is not of printable ASCII, or is too long", "Use 32 to 256 random letters and digits."
    if len(text) < SHORTEST_SECRET or len(set(text)) < FEWEST_DIFFERENT:
        return "can be guessed", f"Use {SHORTEST_SECRET} random characters or more."
    return None


def ssh_key(text: str) -> Problem | None:
    """The fault of an SSH public key; None if it is valid."""
    if "PRIVATE KEY" in text:
        return "is a private key", "Set the public one, and create a new pair because this one is exposed."
    parts = text.split()
    if len(parts) < 2 or KEY_PLACEHOLDER.search(parts[1]):
        return "is a placeholder", "Set an administrator's public key (cat ~/.ssh/id_ed25519.pub)."
    kind, encoded = parts[0], parts[1]
    if not KEY_TYPES.fullmatch(kind):
        return (
            f"is of the type {kind[:40]}",
            "Use ssh-ed25519, ecdsa or ssh-rsa, and write the line as in the .pub file.",
        )
    damaged = "is damaged", "Copy the whole line of the .pub file, and nothing else."
    if not text.strip().isprintable():
        return damaged
    try:
        fields = _fields(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return damaged
    if len(fields) < 2 or fields[0] != kind.encode():
        return damaged
    if kind == "ssh-rsa" and (len(fields) != 3 or int.from_bytes(fields[2]).bit_length() < SHORTEST_RSA_BITS):
        return f"is an RSA key of fewer than {SHORTEST_RSA_BITS} bits", "Create one with ssh-keygen -t ed25519."
    return None


def authorized_key(text: str) -> Problem | None:
    """A line of authorized_keys: options such as from="…" may come before the key."""
    if "\n" in text.strip():
        return "has more than one line", "Make each an entry of its own."
    kind = KEY_TYPES.search(text)
    return ssh_key(text[kind.start() :] if kind else text)


def _fields(blob: bytes) -> list[bytes]:
    """The length-prefixed fields of a public key."""
    fields, position = [], 0
    while position < len(blob):
        if position + 4 > len(blob):
            raise ValueError("cut off")
        (length,) = struct.unpack_from(">I", blob, position)
        position += 4
        if position + length > len(blob):
            raise ValueError("cut off")
        fields.append(blob[position : position + length])
        position += length
    return fields


# Times

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
CRON_FIELDS: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, MONTHS),
    (0, 6, DAYS),
)
CRON_WORDS = re.compile(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)")


def cron(text: str) -> Problem | None:
    """The expressions of robfig/cron, which RKE2 reads."""
    fields = text.split(" ")
    if CRON_WORDS.fullmatch(text) or (
        len(fields) == len(CRON_FIELDS)
        and all(_cron_field(field, *limits) for field, limits in zip(fields, CRON_FIELDS, strict=True))
    ):
        return None
    return "is no cron expression", "Write minute, hour, day, month and weekday, like 0 */6 * * *."


def _cron_field(field: str, lowest: int, highest: int, names: tuple[str, ...]) -> bool:
    for part in field.split(","):
        match = re.fullmatch(r"(\*|\?|(\w+)(-(\w+))?)(/(\d+))?", part, re.A)
        if match is None or (match[6] is not None and not 1 <= int(match[6]) <= highest):
            return False
        numbers = [_number(word, lowest, names) for word in (match[2], match[4]) if word]
        if any(number is None or not lowest <= number <= highest for number in numbers):
            return False
        if len(numbers) == 2 and (numbers[0] or 0) > (numbers[1] or 0):
            return False
    return True


def _number(word: str, lowest: int, names: tuple[str, ...]) -> int | None:
    if word.isdigit():
        return int(word)
    return names.index(word.lower()) + lowest if word.lower() in names else None


WEEKDAY = r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}"
CALENDAR_WORDS = re.compile(r"minutely|hourly|daily|weekly|monthly|quarterly|semiannually|yearly|annually")
CALENDAR = re.compile(
    rf"(?:(?P<days>{WEEKDAY}(?:\.\.{WEEKDAY})?(?:,{WEEKDAY}(?:\.\.{WEEKDAY})?)*)(?: |$))?"
    r"(?:(?P<date>[^ :]*[-~][^ :]*)(?: |$))?"
    r"(?:(?P<time>[^ ]*:[^ ]*)(?: |$))?"
    r"(?P<zone>UTC|[A-Z][a-z]+/[A-Za-z_/+-]+)?",
    re.I | re.A,
)
FULL_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def calendar(text: str) -> Problem | None:
    """systemd's OnCalendar."""
    problem = "is no time of systemd", "Write a systemd OnCalendar expression, like Sun 01:00 or daily."
    if CALENDAR_WORDS.fullmatch(text):
        return None
    match = CALENDAR.fullmatch(text)
    if match is None or text.endswith(" ") or not (match["days"] or match["date"] or match["time"]):
        return problem
    for word in re.findall(r"[a-z]+", (match["days"] or "").lower()):
        if word not in FULL_WEEKDAYS and word not in {day[:3] for day in FULL_WEEKDAYS}:
            return problem
    date = re.split(r"[-~]", match["date"]) if match["date"] else []
    clock = match["time"].split(":") if match["time"] else []
    limits = [(1970, 2199), (1, 12), (1, 31)]
    fields = list(zip(date, limits[-len(date) :], strict=False)) if date else []
    fields += list(zip(clock, [(0, 23), (0, 59), (0, 59)], strict=False))
    if len(date) not in (0, 2, 3) or len(clock) not in (0, 2, 3):
        return problem
    return None if all(_calendar_field(field, *limit) for field, limit in fields) else problem


def _calendar_field(field: str, lowest: int, highest: int) -> bool:
    for part in field.split(","):
        match = re.fullmatch(r"(\*|(\d+)(\.\.(\d+))?)(/(\d+))?", part, re.A)
        if match is None or (match[6] is not None and not 1 <= int(match[6]) <= highest):
            return False
        numbers = [int(number) for number in (match[2], match[4]) if number]
        if any(not lowest <= number <= highest for number in numbers) or numbers != sorted(numbers):
            return False
    return True


DURATION = r"\+?(?=\d|\.\d)(\d+(\.\d+)?(h|m|s|ms|us|µs|ns))+"
duration = matching("duration of Go", "1m30s", rf"0|{DURATION}", 40)
QUANTITY = r"\d+(\.\d+)?(m|[kMGTPE]i?|Ki)?"
quantity = matching("quantity of Kubernetes", "512Mi", QUANTITY, 30)

# Kubernetes

QUALIFIED = r"(?P<prefix>[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?"
LABEL_VALUE = r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?"
NODE_LABELS = re.compile(
    r"((.*\.)?(kubelet|node)\.kubernetes\.io/.*)|(beta\.)?kubernetes\.io/(os|arch|instance-type)|kubernetes\.io/hostname"
    r"|(topology\.kubernetes\.io|failure-domain\.beta\.kubernetes\.io)/(region|zone)"
)
"""Labels of Kubernetes' own domains that a kubelet may set."""


def node_label(text: str) -> Problem | None:
    key, _, value = text.partition("=")
    match = re.fullmatch(QUALIFIED, key, re.A)
    if "=" not in text or match is None or not re.fullmatch(LABEL_VALUE, value, re.A):
        return "is no label of a node", "Write one like example.com/disk=ssd."
    domain = (match["prefix"] or "").rstrip("/")
    if re.search(r"(^|\.)(kubernetes|k8s)\.io$", domain) and not NODE_LABELS.fullmatch(key):
        return (
            f"is of the reserved domain {domain}, with which a kubelet does not start",
            "Use a domain of your own, or set it with kubectl.",
        )
    return None


node_taint = matching(
    "taint", "dedicated=ci:NoSchedule", rf"{QUALIFIED}(={LABEL_VALUE})?:(NoSchedule|PreferNoSchedule|NoExecute)", 400
)
argument = matching("argument of the kind name=value", "v=2", r"[a-z][-a-z0-9]*=[!-~]([ -~]{0,198}[!-~])?", 250)

# Databases and object storage


def postgresql_name(text: str) -> Problem | None:
    if NAME.fullmatch(text) and not text.startswith("pg_"):
        return None
    return (
        "is no usable name",
        "Use at most 63 lower-case letters, digits and underscores, a letter first, not pg_ at the beginning.",
    )


def bucket(text: str) -> Problem | None:
    if re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text) and ".." not in text and address(text) is not None:
        return None
    return "is no name of a bucket", "Use 3 to 63 lower-case letters, digits and dashes."


def containerd_config(text: str) -> Problem | None:
    """Settings of containerd as TOML; the role writes the version of the configuration before them."""
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return f"is no TOML: {error}", "Write settings of containerd, like [plugins.'io.containerd.cri.v1.runtime']."
    if "version" in settings:
        return "sets the version", "Leave version out: the role writes version = 3."
    return None


FORMATS: dict[str, Format] = {
    "absolute_path": absolute_path,
    "access_key": matching("access key", "AKIA0123456789ABCDEF", r"[A-Za-z0-9]{3,128}", 128),
    "account": matching("account name", "deploy", ACCOUNT, 31),
    "address": address,
    "address4": parsed("IPv4 address", "10.40.1.10", IPv4Address),
    "admin_account": ordinary_account,
    "account_number": matching("account number", "1000:1000", r"\d{1,10}(:\d{1,10})?", 21),
    "age_recipient": matching(
        "public key of age", "age1… as create_secrets generates it", r"age1[02-9ac-hj-np-z]{58}", 62
    ),
    "api_url": link("http", "https", path="/v1"),
    "apiserver_argument": argument,
    "authorized_key": authorized_key,
    "bucket": bucket,
    "bucket_part": matching("part of the platform", "etcd", "etcd|postgresql|ceph|rancher|volumes|config", 10),
    "bucket_path": matching("path in a bucket", "/postgresql", r"(/[\w.-]+)+", 200),
    "calendar": calendar,
    "ceph_app": matching("application of Ceph", "rbd", r"[a-z][a-z0-9_-]*", 64),
    "ceph_cipher": matching("key type of Ceph", "aes256k", "aes|aes256k", 7),
    "ceph_client": matching("user of Ceph without client.", "csi-rbd", r"[A-Za-z0-9_][\w.-]*", 100),
    "ceph_image": matching(
        "image by digest or full build tag",
        "quay.io/ceph/ceph:v20.2.4-20260818",
        r"[a-z0-9][\w./:-]*(@sha256:[0-9a-f]{64}|:v\d+\.\d+\.\d+-\d{8})",
        300,
    ),
    "ceph_module": matching("module of the manager", "prometheus", r"[a-z][a-z0-9_]*", 64),
    "ceph_pool": matching("name of a pool", "kubernetes", r"[A-Za-z0-9][\w-]*(\.[\w-]+)*", 100),
    "ceph_warning": matching("health warning", "AUTH_INSECURE_KEYS_ALLOWED", r"[A-Z][A-Z0-9_]*", 64),
    "certificate": certificate,
    "checksum": matching("checksum", f"sha256:{'0' * 8}…", r"sha256:[0-9a-f]{64}", 71),
    "chart_version": matching("exact version of a chart", "v1.21.2", r"v?\d{1,3}\.\d{1,3}\.\d{1,3}(-[\w.-]+)?", 40),
    "chart": matching("packaged chart", "rke2-metrics-server", r"rke2-[a-z0-9-]+", 63),
    "cidr": cidr,
    "cidr4": cidr4,
    "command_options": matching("list of options", "-F 1", r"-[\w-]+( -?[\w./:=-]+)*", 100),
    "cron": cron,
    "debian_release": matching("major version of Debian", "13", r"[1-9]\d", 2),
    "debian_version": matching("version of Debian", "1.26.3-3+deb13u10", r"\d[\w.+:~-]*", 60),
    "dns_label": dns_label,
    "dns_name": dns_name,
    "email": matching("email address", "ops@example.com", rf"[\w.+-]{{1,64}}@{DOMAIN.pattern}", 254),
    "environment": matching("name of an environment", "prod", r"[a-z][a-z0-9]{0,15}", 16),
    "extension": matching("extension of PostgreSQL", "pg_trgm", r"[a-z][a-z0-9_-]*", 63),
    "host": host,
    "hcloud_token": matching("token", "that of the console", r"[\w-]+", 256),
    "host_pattern": matching("pattern of hosts", "postgresql", r"[\w.*:&!,\[\]-]+", 253),
    "https_url": link("https"),
    "image_archive": matching(
        "image archive", "rke2-images-core.linux-amd64.tar.zst", r"[\w.-]+\.tar(\.zst|\.gz)?", 128
    ),
    "interface": matching("network interface", "enp7s0", r"[A-Za-z0-9][\w.-]{0,14}", 15),
    "interfaces": matching("network interface, with * at its end only", "cali*", r"[A-Za-z0-9][\w.-]{0,13}[\w*]?", 15),
    "key_name": matching("name", "app", r"[A-Za-z0-9_][\w.-]*", 100),
    "line": matching("one line of text", "Backups of prod", r"[\w(][ \w.,:()/@+-]*", 128),
    "listen_address": listen_address,
    "location": matching("location of Hetzner", "fsn1", r"[a-z]{2,8}\d{0,2}", 10),
    "minor": matching("minor version", "1.36", r"1\.\d{1,3}", 6),
    "mirror_path": matching("path on a mirror", "debian-security", r"/?[\w~][\w.~-]*(/[\w~][\w.~-]*)*/?", 200),
    "mode": matching("file mode", "0600", r"0?[0-7]{3}", 4),
    "network_zone": matching("network zone of Hetzner", "eu-central", r"[a-z]+-[a-z]+", 30),
    "node_label": node_label,
    "node_taint": node_taint,
    "package": matching("package of Debian", "htop", r"[a-z0-9][a-z0-9+.-]+(=\d[\w.+:~-]*)?", 128),
    "password": password,
    "path": path,
    "platform_domain": platform_domain,
    "postgresql_major": matching("major version of PostgreSQL", "17", "|".join(MAJORS), 2),
    "postgresql_name": postgresql_name,
    "capability": matching("capability of Linux", "CHOWN", r"[A-Z][A-Z_]*", 40),
    "containerd_config": containerd_config,
    "container_image": matching(
        "image with its registry",
        "docker.io/library/debian:13",
        r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)+(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?",
    ),
    "container_volume": matching(
        "directory for containers",
        "/srv/state:/srv/state",
        r"/[\w./-]+:/[\w./-]+(:ro)?",
    ),
    "image_pattern": matching(
        "pattern of images",
        "docker.io/library/*",
        r"[a-z0-9*][a-z0-9.*-]*(:\d+)?(/[a-z0-9._*?-]+)+(:[\w.*-]+)?(@[\w:]+)?",
    ),
    "key_fingerprint": matching(
        "fingerprint of a key", "F6403F6544A38863DAA0B6E03F01618A51312F3F", r"[0-9A-Fa-f]{40}", 40
    ),
    "object_key": matching(
        "key of an object", "ceph/image-kubernetes-data.rbd.zst.age", r"\w[\w.-]*(/\w[\w.-]*)*", 250
    ),
    "release": matching("version of three numbers", "19.3.0", r"\d{1,3}\.\d{1,3}\.\d{1,3}(-[\w.-]+)?", 40),
    "runner_token": matching(
        "authentication token of a runner", "glrt-… from create_runner", r"glrt-[\w.-]{20,200}", 210
    ),
    "sha256": matching("SHA-256 in hexadecimal", "9f86d081884c7d65…", r"[0-9a-f]{64}", 64),
    "startup_parameter": matching("parameter of PostgreSQL", "search_path", r"[A-Za-z_][\w.]*", 63),
    "store_name": matching("name of a store", "s3.example.com:443", rf"{DOMAIN.pattern}(:\d{{1,5}})?"),
    "rbd_image": matching("image of Ceph", "kubernetes/data", r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*){1,2}", 200),
    "principal": matching(
        "principal",
        "arn:aws:iam:::user/p12:KEY",
        r"arn:aws:iam::[\w-]*:[\w./-]+(:[\w-]+)?|[A-Za-z0-9_][\w.-]*",
        200,
    ),
    "private_key": private_key,
    "region": matching("region", "fsn1", r"[a-z][a-z0-9-]{0,39}", 40),
    "registry": matching(
        "registry", "registry.example.com:5000/mirror", r"[a-z0-9][a-z0-9.-]*(:\d{2,5})?(/[\w./-]+)?", 250
    ),
    "rke2_version": matching("release of RKE2", "v1.36.3+rke2r1", r"v\d+\.\d+\.\d+\+rke2r\d+", 30),
    "served_name": served_name,
    "secret": secret,
    "server_type": matching("server type of Hetzner", "cx23", r"[a-z]{2,4}\d{2,3}", 8),
    "ssh_key": ssh_key,
    "system_image": matching("system image of Hetzner", "debian-13", r"[a-z]+-[a-z0-9.]+", 40),
    "time": matching("time of day", "04:00", r"([01]\d|2[0-3]):[0-5]\d", 5),
    "url": link("http", "https"),
    "uuid": matching(
        "UUID in small letters", "the output of uuidgen", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", 36
    ),
    "version": matching("version", "20.2.4", r"\d{1,3}\.\d{1,3}\.\d{1,3}", 11),
    "volume_id": matching("id of a volume", "102345678", r"\d{1,12}", 12),
}
