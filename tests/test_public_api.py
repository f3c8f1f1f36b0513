"""Every public name exists, is documented on its API page, and nothing else is there."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "repro.privacy": "privacy",
    "repro.accounting": "accounting",
    "repro.secagg": "secagg",
    "repro.models": "models",
    "repro.kernels": "kernels",
}


def resolve(path: str):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("package", PAGES)
def test_all_names_are_on_the_page_and_are_what_the_page_says(package):
    page = (ROOT / "docs" / "api" / f"{PAGES[package]}.md").read_text(encoding="utf-8")
    described = {path.rpartition(".")[2]: path for path in re.findall(r"^::: (\S+)$", page, re.M)}
    described.pop("planning", None)  # the module's own docstring
    named = set(re.findall(r"^- \[`(\w+)`\]", page, re.M))
    public = importlib.import_module(package)
    assert set(described) | named == set(public.__all__)
    assert len(set(public.__all__)) == len(public.__all__)
    for name, path in described.items():
        assert resolve(path) is getattr(public, name), path
    other = importlib.import_module("repro.accounting")
    assert all(getattr(other, name) is getattr(public, name) for name in named)


@pytest.mark.parametrize("package", PAGES)
def test_every_public_function_and_class_says_what_it_is(package):
    public = importlib.import_module(package)
    silent = [
        name
        for name in public.__all__
        if callable(getattr(public, name)) and not (getattr(public, name).__doc__ or "").strip()
    ]
    assert not silent


STAR = """
import {package} as p
from {package} import *
missing = [n for n in p.__all__ if n not in globals()]
assert not missing, missing
# Twice: a submodule of the same name must not take a function's place.
from {package} import *
import types
assert not [n for n in p.__all__ if isinstance(globals()[n], types.ModuleType)]
"""
# Each in a process of its own, forked from one that has imported nothing of ours.
FORKS = """
import os, sys, scipy.stats, torch
for code in sys.argv[1:]:
    if not (process := os.fork()):
        exec(code, {"__name__": "__main__"})
        os._exit(0)  # to take torch down costs a second
    assert os.waitpid(process, 0)[1] == 0, code
assert "repro" not in sys.modules
"""


def test_a_star_import_brings_exactly_them():
    codes = [STAR.format(package=package) for package in PAGES]
    done = subprocess.run([sys.executable, "-c", FORKS, *codes], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_sites_pages_exist_and_every_link_leads_somewhere():
    """`make docs` checks more, strictly: that no page is left out, and every anchor."""
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    listed = set(re.findall(r": ([\w/-]+\.md)$", nav, re.M))
    docs = ROOT / "docs"
    assert listed <= {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    for path in [*docs.rglob("*.md"), ROOT / "README.md", ROOT / "ARTIFACT.md"]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
