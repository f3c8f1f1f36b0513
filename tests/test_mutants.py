"""The list of faults that ``make mutants`` puts in does not rot, and none of them is left open."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

import mutants  # noqa: E402

FAULTS = mutants.read_list()


def test_every_fault_can_still_be_put_in():
    """Its old text stands in its file exactly once; with the new one the file is Python still."""
    assert len({fault.id for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        before = (ROOT / fault.file).read_text(encoding="utf-8")
        after = fault.applied(ROOT)
        assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(before)), fault.id
        assert fault.test_files(), fault.id
        assert all((ROOT / file).is_file() for file in fault.test_files()), fault.id


def test_every_fault_on_record_was_caught_or_is_explained():
    known = mutants.read_record()
    assert set(known) == {fault.id for fault in FAULTS}
    for fault in FAULTS:
        assert mutants.in_order(fault, known[fault.id]), fault.id
