"""A stand-in for TensorRT, made from the dump of the real bindings: the same names, signatures and enums.

What the bindings do not have is an AttributeError here too, and a call that does not fit a TypeError. Behind them,
`behaviour` "compiles" a network by wrapping its ONNX, and runs it with onnxruntime in host memory.
"""

from types import ModuleType

import trt_behaviour as behaviour
import trt_bindings as bindings
from trt_signatures import parse


class _Made(type):
    """Type of the classes: makes instances as pybind11 does."""

    def __call__(cls, *arguments, **keywords):
        if cls.__dict__.get("_abstract"):
            raise TypeError(f"{cls.__name__}: No constructor defined!")
        made = cls.__new__(cls)
        made.__init__(*arguments, **keywords)
        if not made.__dict__.get("_begun"):
            raise TypeError(f"{cls.__name__}.__init__() must be called when overriding __init__")
        return made

    def __getattr__(cls, name):
        raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")


class _Object(metaclass=_Made):
    _settable, _generated = {}, False

    def __setattr__(self, name, value):
        # A class of Python that derives from one of these has attributes of its own.
        if name.startswith("_") or not type(self).__dict__.get("_generated"):
            object.__setattr__(self, name, value)
        elif not self._settable.get(name):
            raise AttributeError(f"{type(self).__name__!r} object attribute {name!r} "
                                 + ("is read-only" if name in self._settable else "does not exist"))
        else:
            self.__dict__.setdefault("_values", {})[name] = value
            getattr(self, f"_set_{name}", lambda _: None)(value)


class _Bytes(bytes):
    """Memory of the host, which the bindings offer as a buffer."""


class Enum:
    """A member of an enum, as pybind11 makes it: no int, but it becomes one."""

    def __init__(self, kind, name, value):
        self._kind, self.name, self.value = kind, name, value

    def __int__(self):
        return self.value

    __index__ = __int__

    def __eq__(self, other):
        return isinstance(other, Enum) and (self._kind, self.value) == (other._kind, other.value)

    def __hash__(self):
        return hash((self._kind, self.value))

    def __repr__(self):
        return f"{self._kind.split('.')[-1]}.{self.name}"


def make(release: str, name: str = "tensorrt") -> ModuleType:
    """Make a module that can stand where the real one would be imported.

    Args:
        release: A key of ``bindings.VERSIONS``.
        name: ``tensorrt`` or ``tensorrt_lean``.
    """
    dumped = bindings.committed(release)[name]
    module = ModuleType(name)
    module.__version__ = dumped["version"]
    classes: dict[str, type] = {}
    for kind in sorted(dumped["classes"], key=lambda one: "base" in dumped["classes"][one]):
        _add(module, module, classes, kind, dumped["classes"][kind], kind)
    for kind, about in dumped["classes"].items():
        for value, of in about["values"].items():
            found = classes.get(of)
            setattr(classes[kind], value, getattr(found, value, found))
    for value, of in dumped["values"].items():
        setattr(module, value, getattr(classes.get(of), behaviour.DATA_TYPES.get(value, value), None))
    return module


def _add(module, holder, classes, name, about, qualified):
    attributes = {"_module": module, "_abstract": about.get("abstract", False), "_generated": True,
                  "_settable": about["properties"]}
    if "enum" in about:
        made = type(name, (Enum,), {"__members__": {}})
        for member, value in about["enum"].items():
            entry = made(qualified, member, value)
            made.__members__[member] = entry
            setattr(made, member, entry)
    else:
        acts = getattr(behaviour, name, object)
        for method, texts in about["methods"].items():
            attributes[method] = _method(module, name, method, [parse(text) for text in texts], vars(acts).get(method))
        for entry in about["properties"]:
            attributes[entry] = _property(entry, vars(acts).get(entry))
        attributes |= {key: value for key, value in vars(acts).items()
                       if key.startswith("_") and not key.startswith("__")}
        unknown = [key for key in vars(acts) if not key.startswith("_") and key not in attributes]
        assert not unknown, f"{name} acts on {unknown}, which TensorRT does not have"
        base = classes.get(about.get("base"), _Object)
        made = _Bytes if name == "IHostMemory" else _Made(name, (base,), attributes)
    for nested, described in about.get("classes", {}).items():
        _add(module, made, classes, nested, described, f"{qualified}.{nested}")
    classes[qualified] = made
    setattr(holder, name, made)


def _property(name, act):
    def get(self):
        return act(self) if act else self.__dict__.get("_values", {}).get(name)

    return property(get)


def _method(module, kind, name, overloads, act):
    def call(self, *arguments, **keywords):
        fitting = [one for one in overloads if one.takes(len(arguments), tuple(keywords))
                   and all(_is_a(module, one, key, value) for key, value in one.bind(arguments, keywords).items())]
        if not fitting:
            raise TypeError(f"{name}(): incompatible function arguments: {arguments} {keywords}")
        if name == "__init__":
            self._begun = True
        elif act is None:
            raise NotImplementedError(f"the stand-in does not act on {kind}.{name}")
        return act(self, **fitting[0].bind(arguments, keywords)) if act else None

    call.__name__ = name
    return call


def _is_a(module, signature, name, value):
    """Say whether an argument has the type that the signature asks for, as far as that is known here."""
    parameter = next(one for one in signature.parameters if one.name == name)
    kind = parameter.type
    if kind == "str":
        return isinstance(value, str) or (value is None and parameter.optional)
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "typing.SupportsInt":
        return hasattr(value, "__index__")
    if kind == "typing_extensions.Buffer":
        return isinstance(value, (bytes, bytearray, memoryview))
    wanted = module
    for part in kind.split("."):
        wanted = getattr(wanted, part, None)
    return not isinstance(wanted, type) or isinstance(value, wanted) or (value is None and parameter.optional)
