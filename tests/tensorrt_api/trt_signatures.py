"""Read the signatures that pybind11 writes, and hold calls against them."""

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name, its type as written, and whether it may be left out."""

    name: str
    type: str
    optional: bool


@dataclass(frozen=True)
class Signature:
    """One overload of a method, without ``self``."""

    parameters: tuple[Parameter, ...]
    returns: str

    def takes(self, positional: int, keywords: tuple[str, ...]) -> bool:
        """Say whether a call of so many positional arguments and these keywords fits."""
        names = [parameter.name for parameter in self.parameters]
        given = set(names[:positional])
        if positional > len(names) or given & set(keywords) or set(keywords) - set(names):
            return False
        return all(parameter.optional or parameter.name in given | set(keywords) for parameter in self.parameters)

    def bind(self, arguments: tuple, keywords: dict) -> dict:
        """Give every argument its name."""
        return dict(zip((parameter.name for parameter in self.parameters), arguments)) | keywords


@cache
def parse(text: str) -> Signature:
    """Read a signature such as ``f(self: C, a: str, b: int = 0) -> bool``."""
    inside, _, returns = text.partition("(")[2].rpartition(") -> ")
    parameters = []
    for part in _split(inside):
        name, _, rest = part.partition(":")
        kind, equals, _ = rest.partition(" = ")
        if name.strip() != "self":
            parameters.append(Parameter(name.strip(), kind.strip(), bool(equals)))
    return Signature(tuple(parameters), returns.strip())


def _split(text: str) -> list[str]:
    """Split at commas that are in no bracket."""
    found, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += letter in "[(<" and 1 or -(letter in "])>")
        if letter == "," and not depth:
            found.append(text[start:index])
            start = index + 1
    found.append(text[start:])
    return [part for part in found if re.search(r"\w", part)]
