"""Every command and every option has help and is documented; what the documents name exists."""

import re

import click
import pytest

from pano4d.cli import cli

COMMANDS = sorted(cli.commands)


def test_the_commands_are_those_of_the_design():
    assert COMMANDS == ["animate", "build", "convert", "doctor", "generate", "inspect", "lift", "render", "view"]


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help_that_fits_the_list(name):
    command = cli.commands[name]
    first = command.help.split("\n")[0]
    assert command.get_short_help_str(limit=66).rstrip(".") == first.rstrip("."), "the first sentence is too long for `pano4d --help`"


@pytest.mark.parametrize("name", COMMANDS)
def test_options_have_help(name):
    for option in cli.commands[name].params:
        assert isinstance(option, click.Argument) or option.help, f"{name} {option.opts} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_command_stands_in_readme(root, name):
    assert f"pano4d {name}" in (root / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_options_stand_in_the_command_page(root, name):
    section = _section((root / "docs" / "commands.md").read_text(encoding="utf-8"), f"pano4d {name}")
    options = {name for param in cli.commands[name].params if isinstance(param, click.Option) for name in param.opts}
    named = set(re.findall(r"`(--[a-z0-9-]+)", section))
    assert named == options


def test_links_lead_somewhere(root):
    for page in [root / "README.md", *(root / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"


def _section(text, title):
    return re.split(r"^## ", text.split(f"## {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]
