"""The README's figures are those of the results."""

from pano4d.benchmarks import tables


def test_pages_are_up_to_date():
    for page in (tables.ROOT / "README.md", *(tables.ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text) == text, f"{page.name}: run python -m pano4d.benchmarks.tables"


def test_a_table_replaces_what_stood_between_its_markers(monkeypatch):
    monkeypatch.setitem(tables.TABLES, "demo", (tables.ROOT / "README.md", lambda: "| new |\n"))
    assert tables.filled("a\n<!-- table:demo -->\nold\n<!-- /table -->\nb") == \
        "a\n<!-- table:demo -->\n| new |\n<!-- /table -->\nb"


def test_a_table_without_results_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(tables.TABLES, "demo", (tmp_path / "demo.json", lambda: "| new |\n"))
    assert "Not measured yet" in tables.filled("<!-- table:demo -->\nold\n<!-- /table -->")
