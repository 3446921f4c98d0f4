"""Loading the program whose functions a server runs, and what is said when that cannot be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatch.functions.registry import REGISTRY
from dispatch.server.loading import Loaded, LoadError, load

APP = """
import dispatch

@dispatch.function(name="greet")
def greet(to):
    return to
"""


@pytest.fixture(autouse=True)
def _as_before(tmp_path: Path) -> Iterator[None]:
    """What is loaded here is forgotten again."""
    modules, path = set(sys.modules), list(sys.path)
    exact, short = dict(REGISTRY._exact), dict(REGISTRY._short)
    REGISTRY._exact.clear()
    REGISTRY._short.clear()
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path
    REGISTRY._exact.clear()
    REGISTRY._exact.update(exact)
    REGISTRY._short.clear()
    REGISTRY._short.update(short)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / (name.replace("__in__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def refused(target: str, folder: Path) -> str:
    with pytest.raises(LoadError) as e:
        load(target, folder=folder)
    return str(e.value)


def names(loaded: Loaded) -> set[str]:
    return set(loaded.registry.names())


# ── what can be loaded ──


def test_a_file(tmp_path: Path) -> None:
    write(tmp_path, jobs=APP)
    loaded = load("jobs.py", folder=tmp_path)

    assert names(loaded) == {"greet"}
    assert loaded.origin == str(tmp_path / "jobs.py")


def test_a_file_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "sub", jobs=APP)
    assert names(load("sub/jobs.py", folder=tmp_path)) == {"greet"}


def test_a_file_whose_name_is_no_identifier(tmp_path: Path) -> None:
    (tmp_path / "my-jobs.py").write_text(APP.replace('(name="greet")', ""))
    assert names(load("my-jobs.py", folder=tmp_path)) == {"greet", "my-jobs.greet"}


def test_a_file_beside_others_that_it_imports(tmp_path: Path) -> None:
    write(tmp_path, jobs_a="import jobs_b", jobs_b=APP)
    assert names(load("jobs_a.py", folder=tmp_path)) == {"greet"}


def test_a_file_in_a_package_is_imported_as_part_of_it(tmp_path: Path) -> None:
    write(tmp_path / "shop_pkg", __init__="", rates="RATE = 2", jobs="from .rates import RATE\n" + APP)
    load("shop_pkg/jobs.py", folder=tmp_path)

    assert sys.modules["shop_pkg.jobs"].RATE == 2


def test_a_module(tmp_path: Path) -> None:
    write(tmp_path / "shop_mod", __init__="", jobs=APP)
    loaded = load("shop_mod.jobs", folder=tmp_path)

    assert names(loaded) == {"greet"}
    assert loaded.origin == "shop_mod.jobs"


@pytest.mark.parametrize("attribute", ["registry", "ship", "functions", "Jobs.registry"])
def test_an_attribute_of_a_module(tmp_path: Path, attribute: str) -> None:
    write(
        tmp_path,
        jobs_attr=APP
        + """
from dispatch.functions import Registry
registry = Registry()

@registry.function(name="ship")
def ship(order):
    return order

functions = [ship]

class Jobs:
    registry = registry
""",
    )
    loaded = load(f"jobs_attr:{attribute}", folder=tmp_path)

    assert names(loaded) == {"ship"}
    assert loaded.origin == f"jobs_attr:{attribute}"
    assert names(load(f"jobs_attr.py:{attribute}", folder=tmp_path)) == {"ship"}


def test_nothing_means_app_py_where_there_is_one(tmp_path: Path) -> None:
    write(tmp_path, app=APP)
    assert names(load(None, folder=tmp_path)) == {"greet"}


def test_nothing_is_fine_where_there_is_none(tmp_path: Path) -> None:
    loaded = load(None, folder=tmp_path)
    assert not names(loaded)
    assert loaded.origin == ""


def test_the_same_file_again_is_no_conflict(tmp_path: Path) -> None:
    write(tmp_path, jobs=APP)
    load("jobs.py", folder=tmp_path)
    assert names(load("jobs.py", folder=tmp_path)) == {"greet"}


# ── what cannot ──


def test_a_file_that_is_not_there_says_what_is_near(tmp_path: Path) -> None:
    write(tmp_path, jobs=APP)
    message = refused("job.py", tmp_path)

    assert message.startswith("there is no file job.py")
    assert message.endswith(f"did you mean {tmp_path}/jobs.py?")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "sub" / "x").mkdir(parents=True)
    assert refused("sub/x", tmp_path).startswith("sub/x is a directory: expected a file")


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    assert refused("no_such.jobs", tmp_path).startswith(
        f"there is no module no_such (looked in {tmp_path} and"
    )


def test_a_module_that_lacks_something_shows_its_own_line(tmp_path: Path) -> None:
    write(tmp_path, jobs="import dispatch\nimport no_such_library\n")
    message = refused("jobs", tmp_path)

    assert message.splitlines() == [
        "jobs does not import:",
        f'  File "{tmp_path}/jobs.py", line 2, in <module>',
        "    import no_such_library",
        "ModuleNotFoundError: No module named 'no_such_library'",
    ]


def test_a_file_that_raises_shows_the_way_to_the_line(tmp_path: Path) -> None:
    write(tmp_path, jobs="def rate():\n    return 1 / 0\n\nRATE = rate()\n")
    message = refused("jobs.py", tmp_path)

    assert message.startswith(f"{tmp_path}/jobs.py does not import:\n")
    assert f'File "{tmp_path}/jobs.py", line 4, in <module>' in message
    assert f'File "{tmp_path}/jobs.py", line 2, in rate' in message
    assert message.endswith("ZeroDivisionError: division by zero")
    assert "importlib" not in message
    assert "loading.py" not in message


def test_a_file_with_a_syntax_error_shows_it(tmp_path: Path) -> None:
    write(tmp_path, jobs="def greet(:\n    pass\n")
    message = refused("jobs.py", tmp_path)

    assert f'File "{tmp_path}/jobs.py", line 1' in message
    assert "SyntaxError" in message


def test_a_function_registered_twice_names_both_places(tmp_path: Path) -> None:
    write(tmp_path, jobs=APP + '\n@dispatch.function(name="greet")\ndef other(to):\n    return [to]\n')
    message = refused("jobs.py", tmp_path)

    assert 'ValueError: two functions are named "greet"' in message
    assert f"one at {tmp_path}/jobs.py:4, one at {tmp_path}/jobs.py:8" in message
    assert "registry.py" not in message


def test_a_script_that_ends_the_program_says_where_that_belongs(tmp_path: Path) -> None:
    write(tmp_path, jobs=APP + "\nraise SystemExit(3)\n")
    message = refused("jobs.py", tmp_path)

    assert "ends the program while it is imported (SystemExit: 3)" in message
    assert 'if __name__ == "__main__":' in message


def test_ctrl_c_during_the_import_is_ctrl_c(tmp_path: Path) -> None:
    write(tmp_path, jobs="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load("jobs.py", folder=tmp_path)


def test_a_program_without_functions_says_how_to_declare_one(tmp_path: Path) -> None:
    write(tmp_path, jobs="x = 1")
    message = refused("jobs.py", tmp_path)

    assert "declares no functions; declare one with a decorator:" in message
    assert "    @dispatch.function\n    def send_email(to: str): ..." in message


def test_an_attribute_that_is_not_there_says_what_is_near(tmp_path: Path) -> None:
    write(tmp_path, jobs=APP + "\nregistry = 1\n")
    assert refused("jobs:regestry", tmp_path) == 'jobs has no attribute "regestry"; did you mean "registry"?'


def test_an_attribute_that_is_something_else_says_what_was_expected(tmp_path: Path) -> None:
    write(tmp_path, jobs=APP + "\nregistry = 1\n")
    assert refused("jobs:registry", tmp_path).startswith(
        "jobs:registry is int 1: expected a Registry, a function"
    )


@pytest.mark.parametrize("target", ["", ":registry", "jobs:", "my jobs", "1st", "a..b"])
def test_what_names_nothing_is_refused(tmp_path: Path, target: str) -> None:
    message = refused(target, tmp_path)
    assert "expected" in message
    assert "module:attribute" in message


@pytest.mark.parametrize("name", ["json", "dispatch"])
def test_a_file_that_hides_a_module_has_to_be_renamed(tmp_path: Path, name: str) -> None:
    write(tmp_path, **{name: APP})
    message = refused(f"{name}.py", tmp_path)

    assert message.startswith(f"{tmp_path}/{name}.py would be imported as {name}, but that is the name of ")
    assert message.endswith("rename the file")
