"""The quick tests catch faults that are put into the numeric modules on purpose."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import FAULTS, Fault

ROOT = Path(__file__).parents[2]
FOLDERS = ("backbones", "heads", "tasks", "pipelines", "cluster")


def test_the_list_is_of_today():
    assert len(FAULTS) >= 20
    for fault in FAULTS:
        assert (ROOT / fault.file).read_text().count(fault.right) == 1, f"{fault.file}: {fault.right}"
        assert all((ROOT / "tests" / name).is_file() for name in fault.caught_by.split())


def spoiled(fault: Fault, folder: Path) -> Path:
    """Lay the package out as it is installed, with the fault in it; return the folder to import it from."""
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "trunkline", folder / "trunkline", ignore=leave)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / "trunkline" / name, ignore=leave)
    file = folder / "trunkline" / fault.file
    file.write_text(file.read_text().replace(fault.right, fault.wrong))
    return folder


@pytest.mark.slow
@pytest.mark.cold
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.what.replace(" ", "-"))
def test_a_fault_is_caught(fault, tmp_path):
    place = spoiled(fault, tmp_path / "packages")
    environment = os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("TRUNKLINE_TEST_WARM", None)
    found = subprocess.run(
        [sys.executable, "-c", "import trunkline; print(trunkline.__file__)"], env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(place) in found.stdout, "another trunkline would be tested"
    tests = [str(ROOT / "tests" / name) for name in fault.caught_by.split()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=line", *tests], env=environment,
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and " failed" in done.stdout, (
        f"{fault.what}: not caught\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    )
    print(next(line for line in done.stdout.splitlines() if line.startswith("FAILED")))
