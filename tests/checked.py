"""Annotations of the package are checked at run time: shapes by jaxtyping, the rest by beartype.

jaxtyping's own import hook does the same, but decorates inner functions too, anew at every call
of the outer one, keeps a memo of shapes for functions that have none, and checks arguments twice:
with it the audits took twelve times as long as without any check.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import random
import sys
import typing
from collections.abc import Callable
from dataclasses import is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any
from unittest import mock

# beartype looks at one element of a list, at random. With Python's own generator every pass of a
# model would seem to draw random numbers, and the gate fixes those at twice the time.
with mock.patch("random.getrandbits", random.Random(0).getrandbits):
    from beartype import BeartypeConf, beartype

from jaxtyping import AbstractArray, TypeCheckError, config, jaxtyped

BY = "_checked_by_the_tests"  # the name under which a module finds the decorator
_TYPE_ERROR = BeartypeConf(violation_type=TypeCheckError)  # of jaxtyping: a TypeError


def checked(it: Any, how: BeartypeConf | None = None) -> Any:
    """A function whose arguments and result are checked, or a dataclass whose fields are.

    how: by default as beartype does by itself where there are no shapes.
    ``jaxtyping.config.jaxtyping_disable`` turns both kinds of check off while it is set.
    """
    if isinstance(it, type):
        # One that is written out in the class was decorated there.
        if is_dataclass(it) and "__init__" in vars(it) and not hasattr(it.__init__, "__wrapped__"):
            it.__init__ = checked(it.__init__, _TYPE_ERROR)
        return it
    strict: Any = None

    @functools.wraps(it)
    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal strict
        if config.jaxtyping_disable:
            return it(*arguments, **named)
        if strict is None:  # made at the first call: most functions are called by few tests
            strict = _strict(it, how)
        return strict(*arguments, **named)

    return call


def _strict(function: FunctionType, how: BeartypeConf | None) -> Callable[..., Any]:
    """``function`` with checks; where there are shapes, a letter is one number all through a call.

    They are those of jaxtyping's own decorator, which looks at the arguments twice and binds them
    to their names at every call.
    """
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # a name that only type checkers import: that hint is left out
        hints = {name: _hint(function, name) for name in function.__annotations__}
        function, how = _annotated(function, hints), _TYPE_ERROR
    if not any(map(_shaped, hints.values())):
        return beartype(conf=how or BeartypeConf())(function)
    strict: Any = beartype(conf=_TYPE_ERROR)(function)
    scope = jaxtyped("context")

    def call(*arguments: Any, **named: Any) -> Any:
        with scope:
            return strict(*arguments, **named)

    return call


def _hint(function: FunctionType, name: str) -> Any:
    one = SimpleNamespace(__annotations__={name: function.__annotations__[name]})
    try:
        return typing.get_type_hints(one, function.__globals__)[name]
    except Exception:
        return Any


def _annotated(function: FunctionType, hints: dict[str, Any]) -> FunctionType:
    """The same with other annotations; everybody else goes on to see its own."""
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__, copy.__annotations__ = function.__kwdefaults__, hints
    copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
    return copy


def _shaped(hint: Any) -> bool:
    if isinstance(hint, type) and not typing.get_args(hint):
        return issubclass(hint, AbstractArray)
    return any(map(_shaped, typing.get_args(hint)))


class _Decorate(ast.NodeTransformer):
    """Functions and classes of a module and the methods of those; nothing inside a function."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if not _excused(node):  # innermost: other decorators may drop annotations
            node.decorator_list.append(_name(node))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        if not _excused(node):  # outermost: after `dataclass`
            node.decorator_list.insert(0, _name(node))
            self.generic_visit(node)
        return node


def _excused(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return any("no_type_check" in ast.unparse(one) for one in node.decorator_list)


def _name(node: ast.AST) -> ast.Name:
    return ast.copy_location(ast.Name(BY, ast.Load()), node)


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Compiled each time: bytecode on disk is of the source as it is."""
        source = importlib.util.decode_source(self.get_data(self.path))
        tree = _Decorate().visit(ast.parse(source, self.path))
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: Any) -> None:
        setattr(module, BY, checked)
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] != "repro":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def check_annotations() -> None:
    """From here on, of every module of ``repro`` that is imported."""
    sys.meta_path.insert(0, _Finder())
