"""Write the page of a check: one HTML file with its pictures inside, to be opened anywhere."""

import base64
import html
import importlib.metadata
import io
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pano4d.runtime.check_figures import Figure
from pano4d.runtime.check_places import Place
from pano4d.runtime.files import atomic_file
from pano4d.runtime.sphere import rotation, sample_panorama

WIDTH_PX, DETAIL_PX = 720, 300
_RED = (255, 40, 40)
_POLE_FOV_DEG = 60.0
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .25em .8em .25em 0; text-align: left }
th { border-bottom: 1px solid #888; font-weight: 600 } td.n { text-align: right; font-variant-numeric: tabular-nums }
td, tr { border-bottom: 1px solid #e4e4e4; vertical-align: top } .past { color: #b00020; font-weight: 600 }
.within { color: #1b6e2c } .small { color: #666; font-size: 13px } img { vertical-align: top; margin: 0 8px 0 0 }
section { margin: 2em 0 } h2 { margin: 0 0 .2em; font-size: 18px } code { font-size: 13px }
"""


@dataclass(frozen=True)
class Exhibit:
    """A picture that shows the worst of a figure.

    Attributes:
        figure: The figure, with its thresholds.
        value: Its worst value.
        frame: Of this frame.
        picture: The frame, or a view of it. uint8 [H, W, 3].
        place: Where on it; None to mark nothing.
        caption: What the picture is.
    """

    figure: Figure
    value: float
    frame: int
    picture: np.ndarray
    place: Place | None
    caption: str


def write_page(path: Path, result: dict, exhibits: Iterable[Exhibit], figures: dict[str, Figure], report: dict) -> None:
    """Write the page.

    Args:
        path: The file to write, replaced as a whole.
        result: What `check.check` returns.
        exhibits: The pictures; those of figures past their thresholds are shown first.
        figures: All figures by name, with the thresholds that held.
        report: The run's report.json; empty if there is none.

    Raises:
        OutputError: The file system refuses the write.
    """
    name = html.escape(Path(result["path"]).absolute().name)
    past = [row["figure"] for row in result["figures"] if not row["ok"]]
    verdict = f'<span class="past">{len(past)} of {len(result["figures"])} figures past their thresholds</span>' if past \
        else f'<span class="within">all {len(result["figures"])} figures within their thresholds</span>'
    shown = sorted(exhibits, key=lambda one: one.figure.passes(one.value))
    parts = [f"<h1>Check of {name}</h1><p>{verdict}</p>", _figures_table(result["figures"], figures),
             _left_out(result["not_computed"]), _notes(result, report), *map(_section, shown),
             _formulas(figures.values())]
    page = (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Check of {name}</title>'
            f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n")
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _figures_table(rows: list[dict], figures: dict[str, Figure]) -> str:
    lines = [[_name(row, figures), _number(row["value"]), html.escape(row["unit"]), str(row["frame"]),
              _number(row["at_least"]), _number(row["at_most"]), _verdict(row["ok"])] for row in rows]
    return _table(("figure", "worst", "unit", "frame", "at least", "at most", ""), lines, numbers=(1, 3, 4, 5))


def _left_out(rows: list[dict]) -> str:
    if not rows:
        return ""
    lines = [[html.escape(row["figure"]), html.escape(row["why"])] for row in rows]
    return "<h2>Not computed</h2>" + _table(("figure", "why"), lines)


def _notes(result: dict, report: dict) -> str:
    """Say what was checked, and with which versions."""
    from pano4d import __version__

    made = {"checked by": f"pano4d {__version__}, NumPy {np.__version__}, Pillow {importlib.metadata.version('pillow')}, "
                          f"Python {platform.python_version()}",
            "made by": f"pano4d {report['pano4d_version']}" if "pano4d_version" in report else "unknown",
            "model": (report.get("bundle") or {}).get("name"), "frames from": result["source"],
            "notes": "; ".join(result["notes"])}
    return _table(("", ""), [[key, html.escape(str(value))] for key, value in made.items() if value])


def _section(exhibit: Exhibit) -> str:
    figure = exhibit.figure
    limits = [f"{words} {_number(value)}" for words, value in (("at least", figure.at_least), ("at most", figure.at_most))
              if value is not None]
    value = f"{_number(exhibit.value)} {html.escape(figure.unit)}".rstrip()
    told = f"{value}, {', '.join(limits) or 'no threshold'}"
    pictures = [_marked(exhibit.picture, exhibit.place)]
    if exhibit.place:
        pictures.append(_detail(exhibit.picture, exhibit.place))
    images = "".join(f'<img alt="{html.escape(figure.name)}" src="{_jpeg(picture)}">' for picture in pictures)
    heading = f"{html.escape(figure.meaning.capitalize())} <code>{html.escape(figure.name)}</code>"
    return (f"<section><h2>{heading} {_verdict(figure.passes(exhibit.value))}</h2>"
            f"<p>{told}; {html.escape(exhibit.caption)}</p>{images}</section>")


def _formulas(figures: Iterable[Figure]) -> str:
    lines = [[html.escape(text) for text in (one.name, one.formula, one.source)] for one in figures]
    return "<section><h2>Formulas</h2>" + _table(("figure", "of frame t, I of T frames", "from"), lines) + "</section>"


def _marked(picture: np.ndarray, place: Place | None) -> Image.Image:
    """Scale a picture to the page and draw a frame around a place, on both sides of the seam if need be."""
    height, width, _ = picture.shape
    scale = min(WIDTH_PX / width, 1.0)
    image = Image.fromarray(picture).resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    if place is None:
        return image
    draw = ImageDraw.Draw(image)
    top, bottom = (scale * (place.row + side * place.height / 2) for side in (-1, 1))
    left, right = (scale * (place.column + side * place.width / 2) for side in (-1, 1))
    for turn in (-image.width, 0, image.width) if place.width < width else (0,):
        draw.rectangle((left + turn, top, right + turn - 1, bottom), outline=_RED, width=3)
    return image


def _detail(picture: np.ndarray, place: Place) -> Image.Image:
    """Enlarge a place, the seam or a pole in its middle."""
    height, width, _ = picture.shape
    if place.width == width:
        return _pole_view(picture, place.row < height // 2)
    side = min(max(place.height, place.width), height)
    centred = np.roll(picture, width // 2 - place.column, axis=1)
    top, left = int(np.clip(place.row - side // 2, 0, height - side)), width // 2 - side // 2
    cut = centred[top:top + side, left:left + side]
    return Image.fromarray(np.ascontiguousarray(cut)).resize((DETAIL_PX, DETAIL_PX), Image.Resampling.NEAREST)


def _pole_view(picture: np.ndarray, north: bool) -> Image.Image:
    """Look at a pole as through a lens."""
    axis = (np.arange(DETAIL_PX) + 0.5 - DETAIL_PX / 2) / (DETAIL_PX / 2) * np.tan(np.radians(_POLE_FOV_DEG / 2))
    x, y = np.meshgrid(axis, axis)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ rotation(0.0, 90.0 if north else -90.0).T
    return Image.fromarray(np.rint(sample_panorama(picture, rays)).astype(np.uint8))


def _jpeg(image: Image.Image) -> str:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()


def _table(heads: tuple[str, ...], lines: list[list[str]], numbers: tuple[int, ...] = ()) -> str:
    head = f"<tr>{''.join(f'<th>{text}</th>' for text in heads)}</tr>" if any(heads) else ""
    body = ("".join(f'<td class="n">{cell}</td>' if i in numbers else f"<td>{cell}</td>" for i, cell in enumerate(line))
            for line in lines)
    return f"<table>{head}{''.join(f'<tr>{row}</tr>' for row in body)}</table>"


def _name(row: dict, figures: dict[str, Figure]) -> str:
    return f'{html.escape(row["figure"])} <span class="small">{html.escape(figures[row["figure"]].meaning)}</span>'


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _verdict(ok: bool) -> str:
    return '<span class="within">within</span>' if ok else '<span class="past">past</span>'
