"""Print nested figures as plain tables."""

from collections.abc import Mapping
from typing import Any

from pano4d.runtime.amounts import amount

_BYTES = "_bytes"
_WIDTH_OF_A_PIPE = 160


def print_figures(figures: Mapping[str, Any]) -> None:
    """Print a dictionary on stdout: values line by line, lists of dictionaries as tables.

    Args:
        figures: What `inspect`, `doctor` or a report holds. Names that end in ``_bytes`` hold amounts of memory; None
            among them is unknown.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_PIPE)
    grid = Table(box=None, show_header=False, pad_edge=False)
    rows = list(_flat(figures))
    for name, value in rows:
        if not _is_table(value):
            grid.add_row(name.removesuffix(_BYTES), Text(_text(value, name), overflow="fold"))
    with console.capture() as captured:
        console.print(grid)
        for name, value in rows:
            if _is_table(value):
                console.print(f"\n{name}", highlight=False, markup=False)
                console.print(_table(value))
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _flat(figures: Mapping[str, Any], prefix: str = ""):
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _table(rows: list[Mapping[str, Any]]):
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        numbers = name.endswith(_BYTES) or all(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(name.removesuffix(_BYTES), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(row.get(name), name), overflow="fold") for name in names))
    return table


def _text(value: Any, name: str = "") -> str:
    if name.endswith(_BYTES):
        return "unknown" if value is None else amount(value)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "-"
    return str(value)
