"""One page of a list: the six keys of `meta.pagination` (clients fail on a seventh) and the `Link` header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import URL

from lab.cloud.errors import InvalidInput

DEFAULT_PER_PAGE = 25
MAX_PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class Page[T]:
    rows: Sequence[T]
    number: int
    per_page: int
    total: int

    @classmethod
    def cut(cls, rows: Sequence[T], page: str | None, per_page: str | None, max_per_page: int) -> Page[T]:
        number = _positive("page", page, 1)
        size = min(_positive("per_page", per_page, DEFAULT_PER_PAGE), max_per_page)
        return cls(rows[(number - 1) * size : number * size], number, size, len(rows))

    @property
    def last(self) -> int:
        return max(1, -(-self.total // self.per_page))

    @property
    def previous(self) -> int | None:
        return self.number - 1 if self.number > 1 else None

    @property
    def next(self) -> int | None:
        return self.number + 1 if self.number < self.last else None

    def meta(self) -> dict[str, dict[str, int | None]]:
        return {
            "pagination": {
                "page": self.number,
                "per_page": self.per_page,
                "previous_page": self.previous,
                "next_page": self.next,
                "last_page": self.last,
                "total_entries": self.total,
            }
        }

    def link(self, url: URL) -> str:
        pages = {"prev": self.previous, "next": self.next, "last": self.last}
        return ", ".join(
            f'<{url.include_query_params(page=page, per_page=self.per_page)}>; rel="{rel}"'
            for rel, page in pages.items()
            if page is not None
        )


def _positive(name: str, text: str | None, default: int) -> int:
    if text is None or text == "":
        return default
    if not text.isdecimal() or int(text) < 1:
        raise InvalidInput.field(name, f"{text!r} is not a number of 1 or more")
    return int(text)
