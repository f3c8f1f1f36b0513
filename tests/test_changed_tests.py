"""Which tests `make check` takes for a change."""

import sys
from pathlib import Path

from tests.test_layers import imports, sources

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

from changed_tests import importers, nearest_tests  # noqa: E402


def test_the_nearest_come_first():
    found = nearest_tests({"repro/privacy/noise.py"})
    assert found[0] == "tests/privacy/test_noise.py"
    assert "tests/kernels/test_philox.py" in found
    assert "tests/secagg/test_shamir.py" not in found


def test_a_test_itself_the_home_of_a_lazy_name_a_file_that_is_named_and_the_link():
    assert nearest_tests({"tests/secagg/test_field.py"}) == ["tests/secagg/test_field.py"]
    # by `from repro.privacy import PoissonSampler`, not by its module's name
    assert "tests/privacy/test_sampling.py" in nearest_tests({"repro/privacy/sampling.py"})[:5]
    assert "tests/test_mutants.py" in nearest_tests({"tests/mutants/faults.toml"})
    assert nearest_tests({"kernels/philox.py"})[0] == "tests/kernels/test_philox.py"


def test_no_import_that_the_layers_know_is_missing():
    """Another reader of the same source; a package's names count for the modules behind them."""
    found = importers()
    for module, file in sources():
        for target in imports(module, file):
            if not (ROOT / target.replace(".", "/") / "__init__.py").exists():
                assert module in found[target], (module, target)
