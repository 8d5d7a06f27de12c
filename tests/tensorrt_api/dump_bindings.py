"""Print, as JSON, what a module of TensorRT's Python bindings offers. Run alone: ``python dump_bindings.py FOLDER NAME``.

    {"version": ..., "values": [name, ...],
     "classes": {class: {"base": name or absent, "enum": {member: value} or absent, "abstract": true or absent,
                         "methods": {name: [signature, ...]}, "properties": {name: whether it can be set},
                         "values": {name: class or null}, "classes": {...} or absent}}}

A signature is what pybind11 writes at the head of a docstring, and nothing of the text below it. Layers and plugins are
left out: networks come from ONNX.
"""

import importlib
import json
import re
import sys

LEFT_OUT = re.compile(r".*(Layer|Plugin|Attention|Loop|Conditional|Expr|Boundary|Sample|Padding|Quantization|Operation|"
                      r"Mode|TripLimit|Calibrat|Algorithm|Resize|Norm|Sym|TensorDesc|KernelLaunch|CUDA|MoE|Mask|Dims\w|"
                      r"UnaryOp|BoundingBox|Activation|Permutation|Fallback|NodeIndices|Rounding|Profiler).*")
ALWAYS = {"TensorIOMode", "LayerInformationFormat"}
SPECIAL = {"__init__", "__len__", "__getitem__"}
"""Special methods that are dumped; of the others, Python's version decides which there are."""


def signatures(name: str, text: str | None) -> list[str]:
    """Read the signatures off a docstring; types lose the name of their module."""
    lines = [re.sub(r"^\d+\. ", "", line.strip()) for line in (text or "").splitlines()]
    found = [line for line in lines if re.match(rf"{re.escape(name)}\(.*\)( -> .+)?$", line)]
    found = [line for line in found if line != f"{name}(*args, **kwargs)" and "/, *args" not in line]
    return [re.sub(r"\b(tensorrt\w*\.)+|\b(nvinfer1|nvonnxparser)::I?", "", line) for line in found]


def describe_class(made: type) -> dict:
    """Describe what a class itself defines."""
    members = getattr(made, "__members__", {})
    about = {"enum": {name: int(value) for name, value in members.items()}} if members else {}
    if made.__base__.__name__ not in ("pybind11_object", "object"):
        about["base"] = made.__base__.__name__
    methods, properties, values, nested = {}, {}, {}, {}
    for name, value in sorted(vars(made).items()):
        if name in members or (name.startswith("_") and name not in SPECIAL):
            continue
        if isinstance(value, property):
            properties[name] = value.fset is not None
        elif isinstance(value, type) and value.__qualname__.startswith(f"{made.__qualname__}."):
            nested[name] = describe_class(value)
        elif isinstance(value, type):
            values[name] = value.__qualname__
        elif callable(value) or isinstance(value, staticmethod):
            methods[name] = signatures(name, value.__doc__)
        else:
            values[name] = type(value).__qualname__
    if not methods.get("__init__"):
        methods.pop("__init__", None)
        about |= {} if members else {"abstract": True}
    return about | {"methods": methods, "properties": properties, "values": values} | (
        {"classes": nested} if nested else {})


def describe(module) -> dict:
    """Describe a module."""
    named = {name: value for name, value in sorted(vars(module).items()) if not name.startswith("_")}
    classes = {name: describe_class(value) for name, value in named.items()
               if isinstance(value, type) and (name in ALWAYS or not LEFT_OUT.match(name))}
    values = {name: type(value).__qualname__ for name, value in named.items()
              if type(value).__module__.startswith(module.__name__)}
    return {"version": module.__version__, "classes": classes, "values": values}


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    print(json.dumps(describe(importlib.import_module(sys.argv[2])), sort_keys=True))
