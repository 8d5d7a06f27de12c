"""Find out which names and calls of TensorRT a module of ours uses, and hold them against what the bindings have.

TensorRT is ``trt`` or ``self._trt`` in our code. What its functions return is followed by their signatures; parameters
and attributes that hold objects of it are known by their names, in ``RECEIVERS``.
"""

import ast
from dataclasses import dataclass

from trt_signatures import parse

RECEIVERS = {"runtime": "Runtime", "engine": "ICudaEngine", "context": "IExecutionContext", "refitter": "Refitter",
             "builder": "Builder", "config": "IBuilderConfig", "network": "INetworkDefinition", "fault": "ParserError",
             "cache": "ITimingCache"}


@dataclass(frozen=True, order=True)
class Use:
    """One use of a name: of a class or, without ``owner``, of the module; read, write, call, override or derived."""

    owner: str
    name: str
    how: str
    positional: int = 0
    keywords: tuple[str, ...] = ()


class Collector(ast.NodeVisitor):
    """Collect uses; types are ("module", ""), ("class", name), ("object", name) or None.

    Args:
        dumped: A module of the bindings, as dumped; decides what a call returns.
    """

    def __init__(self, dumped: dict) -> None:
        self.classes, self.values = flat_classes(dumped), dumped["values"]
        self.uses: set[Use] = set()
        self.unknown: set[str] = set()
        self._names: dict[str, tuple] = {}
        self._ours: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self._names = self._names, dict(self._names)
        self._ours.add(node.name)
        self.generic_visit(node)
        self._names = before

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            found = self._type(base)
            if found and found[0] == "class":
                for made in node.body:
                    if isinstance(made, ast.FunctionDef) and made.name in self.classes[found[1]]["methods"]:
                        if not made.name.startswith("__"):
                            self.uses.add(Use(found[1], made.name, "override", len(made.args.args) - 1))
                self.uses.add(Use(found[1], "", "derived", 0, tuple(sorted(
                    made.name for made in node.body if isinstance(made, ast.FunctionDef)))))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        found = self._type(node.value)
        for target in node.targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = node.value.elts if isinstance(node.value, ast.Tuple) and len(names) > 1 else [node.value]
            for name, value in zip(names, values):
                if isinstance(name, ast.Name):
                    self._names[name.id] = self._type(value) if len(names) > 1 else found
                elif isinstance(name, ast.Attribute):
                    base = self._type(name.value)
                    if base and base[0] == "object":
                        self.uses.add(Use(base[1], name.attr, "write"))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not isinstance(node.ctx, ast.Store):
            self._type(node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self._type(node)
        for child in (node.func.value if isinstance(node.func, ast.Attribute) else node.func, *node.args, *node.keywords):
            self.visit(child)

    def _type(self, node: ast.AST) -> tuple | None:
        if isinstance(node, ast.Name):
            named = self._names.get(node.id)
            return ("module", "") if node.id == "trt" else named or self._received(node.id)
        if isinstance(node, ast.Call):
            return self._called(node)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        return None

    def _received(self, name: str) -> tuple | None:
        return ("object", RECEIVERS[name.lstrip("_")]) if name.lstrip("_") in RECEIVERS else None

    def _attribute(self, node: ast.Attribute) -> tuple | None:
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return ("module", "") if node.attr == "_trt" else self._received(node.attr)
        base = self._type(node.value)
        if base is None:
            self.unknown.add(node.attr)
            return None
        if node.attr.startswith("__"):
            return None
        kind, name = base
        self.uses.add(Use(name, node.attr, "read"))
        whole = f"{name}.{node.attr}" if kind == "class" else node.attr
        if kind in ("module", "class") and whole in self.classes:
            return ("class", whole)
        if kind == "module" and node.attr in self.values:
            return ("object", self.values[node.attr])
        return None

    def _called(self, node: ast.Call) -> tuple | None:
        keywords = tuple(sorted(one.arg or "**" for one in node.keywords))
        if isinstance(node.func, ast.Attribute):
            base = self._type(node.func.value)
            nested = base and f"{base[1]}.{node.func.attr}" in self.classes
            if base and base[0] in ("object", "class") and not nested:
                # Called on the class, self is given too.
                given = len(node.args) - (base[0] == "class")
                self.uses.add(Use(base[1], node.func.attr, "call", given, keywords))
                texts = self.classes[base[1]]["methods"].get(node.func.attr)
                returned = parse(texts[0]).returns if texts else ""
                return ("object", returned) if returned in self.classes else None
        made = self._type(node.func)
        if made and made[0] == "class":
            self.uses.add(Use(made[1], "__init__", "call", len(node.args), keywords))
            return ("object", made[1])
        return None


def flat_classes(dumped: dict) -> dict[str, dict]:
    """List classes, nested ones by their whole names."""
    found = {}
    for name, about in dumped["classes"].items():
        found[name] = about
        found |= {f"{name}.{inner}": nested for inner, nested in about.get("classes", {}).items()}
    return found


def collect(source: str, dumped: dict) -> list[Use]:
    """List the uses in a source text.

    Raises:
        AssertionError: Something that is called as only TensorRT's objects are is of unknown type.
    """
    found = Collector(dumped)
    found.visit(ast.parse(source))
    telling = {name for about in found.classes.values() for part in ("methods", "properties") for name in about[part]
               if "_" in name.strip("_") and not name.startswith("_")}
    lost = (found.unknown & telling) - found._ours
    assert not lost, f"{sorted(lost)} is called on what is not known to be TensorRT's: name it as RECEIVERS do"
    return sorted(found.uses)


def faults(uses: list[Use], dumped: dict) -> list[str]:
    """Say which uses the bindings do not allow."""
    classes, found = flat_classes(dumped), []
    for use in uses:
        about = classes.get(use.owner)
        if use.owner and about is None:
            found.append(f"there is no class {use.owner}")
        elif not use.owner:
            if use.name not in dumped["classes"] and use.name not in dumped["values"]:
                found.append(f"there is no {use.name}")
        else:
            said = _fault(use, about)
            found += [f"{use.owner}.{use.name} {said}"] if said else []
    return found


def _fault(use: Use, about: dict) -> str | None:
    overloads = [parse(text) for text in about["methods"].get(use.name, ())]
    if use.how == "derived":
        missing = {name for name in about["methods"] if not name.startswith("_")} - set(use.keywords)
        return f"is derived from without {sorted(missing)}" if missing else None
    if use.how == "call":
        fits = any(one.takes(use.positional, use.keywords) for one in overloads)
        return None if fits else f"is not called so: {use.positional} arguments and {list(use.keywords)}"
    if use.how == "override":
        fits = any(len(one.parameters) == use.positional for one in overloads)
        return None if fits else f"is overridden with {use.positional} parameters"
    if use.how == "write":
        return None if about["properties"].get(use.name) else "cannot be set"
    parts = ("methods", "properties", "values", "enum", "classes")
    return None if any(use.name in about.get(part, ()) for part in parts) else "does not exist"
