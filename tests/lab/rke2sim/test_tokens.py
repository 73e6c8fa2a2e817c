import pytest

from lab.rke2sim.runtime import tokens
from lab.rke2sim.runtime.log import Fatal
from lab.rke2sim.runtime.tokens import Token

HASH = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("secret", Token("secret")),
        (" secret\n", Token("secret")),
        ("server:secret", Token("secret", "server")),
        (f"K10{HASH}::server:secret", Token("secret", "server", HASH)),
        (f"K10{HASH}::node:se:cret", Token("se:cret", "node", HASH)),
    ],
)
def test_both_forms(text: str, expected: Token) -> None:
    assert Token.parse(text) == expected


@pytest.mark.parametrize("text", ["", "  ", "K10abc::server:secret", f"K10{HASH}", f"K10{HASH}::server:"])
def test_malformed_tokens(text: str) -> None:
    with pytest.raises(Fatal):
        Token.parse(text)


def test_format_and_parse_are_inverse() -> None:
    assert Token.parse(Token("secret").format(HASH, "node")) == Token("secret", "node", HASH)


def test_sealed_data_needs_its_passphrase() -> None:
    data = b"certificate authority" * 10
    sealed = tokens.seal("right", data)
    assert data not in sealed
    assert sealed != tokens.seal("right", data)
    assert tokens.unseal("right", sealed) == data
    assert tokens.unseal("wrong", sealed) is None
    assert tokens.unseal("right", sealed[:-1] + bytes([sealed[-1] ^ 1])) is None
