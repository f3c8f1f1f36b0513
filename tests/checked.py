"""Annotations of the package are checked at run time: shapes by jaxtyping, the rest by beartype.

jaxtyping's own import hook does the same, but decorates inner functions too, anew at every call
of the outer one, and keeps a memo of shapes for functions that have none: with it the audits took
twelve times as long as without any check.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
import typing
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType
from typing import Any

from beartype import beartype
from jaxtyping import AbstractArray, config, jaxtyped

BY = "_checked_by_the_tests"  # the name under which a module finds the decorator


def checked(it: Any) -> Any:
    """A function whose arguments and result are checked, or a dataclass whose fields are.

    ``jaxtyping.config.jaxtyping_disable`` turns both kinds of check off while it is set.
    """
    if isinstance(it, type):
        return jaxtyped(it, typechecker=beartype)
    strict: Any = None

    @functools.wraps(it)
    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal strict
        if config.jaxtyping_disable:
            return it(*arguments, **named)
        if strict is None:  # made at the first call: most functions are called by few tests
            strict = jaxtyped(it, typechecker=beartype) if _has_shapes(it) else beartype(it)
        return strict(*arguments, **named)

    return call


def _has_shapes(function: Callable[..., Any]) -> bool:
    try:
        return any(map(_shaped, typing.get_type_hints(function).values()))
    except Exception:  # a name that only type checkers import: jaxtyping leaves that one out
        return True


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
