"""The conditions of GitLab's `rules: if`: variables, strings, null, patterns, ==, !=, =~, !~, &&, || and parentheses.

https://docs.gitlab.com/ci/jobs/job_rules/#cicd-variable-expressions
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Variables = Mapping[str, str]
Value = str | None
Condition = Callable[[Variables], bool]

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<operator>==|!=|=~|!~|&&|\|\||\(|\))
    |\$(?P<variable>[A-Za-z_][A-Za-z0-9_]*)
    |\$\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\}
    |"(?P<double>[^"]*)"
    |'(?P<single>[^']*)'
    |/(?P<pattern>(?:\\.|[^/\\])+)/(?P<flags>[a-z]*)
    |(?P<null>null\b)
    )""",
    re.VERBOSE,
)


class ExpressionError(ValueError):
    """What is wrong with a condition, in one sentence."""


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    flags: str = ""


def tokens_of(text: str) -> list[Token]:
    tokens = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"{text[position:].strip()!r} is not understood")
        kind = next(name for name in match.re.groupindex if name != "flags" and match[name] is not None)
        tokens.append(Token({"braced": "variable"}.get(kind, kind), match[kind], match["flags"] or ""))
        position = match.end()
    return tokens


def compile_pattern(pattern: str, flags: str = "") -> re.Pattern[str]:
    if unknown := set(flags) - {"i"}:
        raise ExpressionError(f"the pattern's flag {''.join(sorted(unknown))!r} is not understood")
    try:
        return re.compile(pattern, re.IGNORECASE if "i" in flags else 0)
    except re.error as error:
        raise ExpressionError(f"the pattern /{pattern}/ is wrong: {error}") from error


class _Parser:
    """Recursive descent: or → and → comparison → operand."""

    def __init__(self, text: str) -> None:
        self._tokens = tokens_of(text)
        self._position = 0

    def parse(self) -> Condition:
        condition = self._any()
        if self._position < len(self._tokens):
            raise ExpressionError(f"{self._tokens[self._position].text!r} is not expected here")
        return condition

    def _peek(self) -> str:
        """The next operator, or nothing."""
        if self._position < len(self._tokens) and self._tokens[self._position].kind == "operator":
            return self._tokens[self._position].text
        return ""

    def _next(self) -> Token:
        if self._position == len(self._tokens):
            raise ExpressionError("the condition ends too early")
        self._position += 1
        return self._tokens[self._position - 1]

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._peek() == "||":
            self._next()
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda variables: any(part(variables) for part in parts)

    def _all(self) -> Condition:
        parts = [self._comparison()]
        while self._peek() == "&&":
            self._next()
            parts.append(self._comparison())
        return parts[0] if len(parts) == 1 else lambda variables: all(part(variables) for part in parts)

    def _comparison(self) -> Condition:
        if self._peek() == "(":
            self._next()
            condition = self._any()
            if self._peek() != ")":
                raise ExpressionError("a parenthesis is not closed")
            self._next()
            return condition
        left = self._operand()
        match self._peek():
            case "==" | "!=" as operator:
                self._next()
                right = self._operand()
                return lambda variables: (left(variables) == right(variables)) == (operator == "==")
            case "=~" | "!~" as operator:
                self._next()
                pattern = self._pattern()
                return lambda variables: _matches(left(variables), pattern(variables)) == (operator == "=~")
        return lambda variables: bool(left(variables))

    def _operand(self) -> Callable[[Variables], Value]:
        token = self._next()
        match token.kind:
            case "variable":
                return lambda variables: variables.get(token.text)
            case "single" | "double":
                return lambda variables: token.text
            case "null":
                return lambda variables: None
        raise ExpressionError(f"{token.text!r} is not expected here")

    def _pattern(self) -> Callable[[Variables], re.Pattern[str] | None]:
        """A pattern, or a variable that contains one with its slashes."""
        token = self._next()
        if token.kind == "pattern":
            pattern = compile_pattern(token.text, token.flags)
            return lambda variables: pattern
        if token.kind == "variable":
            return lambda variables: _pattern_in(variables.get(token.text))
        raise ExpressionError(f"{token.text!r} is not a pattern, which has slashes around it")


def _pattern_in(value: Value) -> re.Pattern[str] | None:
    match = re.fullmatch(r"/(.+)/([a-z]*)", value or "", re.DOTALL)
    return compile_pattern(match[1], match[2]) if match else None


def _matches(value: Value, pattern: re.Pattern[str] | None) -> bool:
    return value is not None and pattern is not None and pattern.search(value) is not None


def parse(text: str) -> Condition:
    """A condition as a function of the variables."""
    return _Parser(text).parse()


_REFERENCE = re.compile(r"\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")


def names_in(text: str) -> list[str]:
    """The variables that a text names."""
    return [match[2] or match[3] for match in _REFERENCE.finditer(text) if not match[1]]


def expand(text: str, variables: Variables) -> str:
    """Replace $NAME, ${NAME} and $$; what is not defined stays as it is, for the shell of the job."""
    return _REFERENCE.sub(lambda match: match[1] or variables.get(match[2] or match[3], match[0]), text)


def matches_path(pattern: str, path: str) -> bool:
    """Whether a path of the repository matches a pattern of `changes`: ?, * within a directory, ** across them."""
    if unknown := set(pattern) & set("[]{}!"):
        raise ExpressionError(f"{''.join(sorted(unknown))!r} in a path is not understood")
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    expression = re.sub(r"\*\*/|\*\*|\*|\?|[^*?]+", lambda match: parts.get(match[0], re.escape(match[0])), pattern)
    return re.fullmatch(expression, path) is not None
