"""Measured figures and their goals. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float
    unit: str
    goal: float | None = None
    """Upper limit; None for a figure that has no goal."""
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.goal is None or self.value <= self.goal

    @property
    def value_text(self) -> str:
        return f"{self.value:.1f} {self.unit}" if self.value < 100 else f"{self.value:.0f} {self.unit}"

    @property
    def goal_text(self) -> str:
        return "" if self.goal is None else f"≤ {self.goal:g} {self.unit}"


def table(figures: Sequence[Figure]) -> Table:
    rows = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column, side in (("figure", "left"), ("value", "right"), ("goal", "right"), ("", "left")):
        rows.add_column(column, justify=side)  # type: ignore[arg-type]
    for figure in figures:
        style = "green" if figure.reached else "red"
        rows.add_row(
            figure.name,
            Text(figure.value_text, style=style if figure.goal is not None else ""),
            figure.goal_text,
            Text(figure.note, style="dim"),
        )
    return rows
