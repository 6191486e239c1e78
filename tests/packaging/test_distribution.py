"""The wheel as users get it: built from a copy of the checkout, installed into clean environments."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path

import pytest

from airflow_provider_kling.api import read_mp4
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "airflow_provider_kling"
SOURCES = (PACKAGE, "README.md", "LICENSE", "NOTICE", "setup.cfg", "pyproject.toml")
LOCKED = ".".join(importlib.metadata.version("apache-airflow").split(".")[:2])
LOCK = ROOT / "requirements" / f"airflow-{LOCKED}.txt"
API_NEEDS = ("requests", "aiohttp", "pillow")


def run(command: Sequence[str | Path], **env: str) -> str:
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, env=outside | env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment(folder: Path) -> Path:
    """Make a clean virtual environment and return its folder of executables."""
    run([sys.executable, "-m", "venv", folder])
    return folder / "bin"


def install(executables: Path, *wanted: str | Path) -> None:
    """Install with the lock's versions: with uv, or where it cannot reach an index, with pip."""
    python = executables / "python"
    uv = [sys.executable, "-m", "uv", "pip", "install", "--python", python]
    with_lock = [*wanted, "--constraint", LOCK]
    env = {"UV_SYSTEM_CERTS": "1"} | os.environ
    if subprocess.run([*uv, *with_lock], env=env, capture_output=True, check=False).returncode != 0:
        run([python, "-m", "pip", "install", *with_lock])


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both distributions, the wheel from the source distribution, outside of the checkout."""
    checkout, built = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name)
        else:
            shutil.copy(ROOT / name, checkout)
    for stray in ("tests", "dags", "benchmarks"):
        (checkout / stray).mkdir()
        (checkout / stray / "__init__.py").touch()
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", built, checkout])
    return built


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (found,) = distributions.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel with what it asks for itself, and nothing else."""
    executables = environment(tmp_path_factory.mktemp("installed"))
    install(executables, wheel)
    return executables


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    in_checkout = {
        str(path.relative_to(ROOT))
        for path in (ROOT / PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert f"{PACKAGE}/py.typed" in held
    assert any(name.startswith(f"{PACKAGE}/emulator/rendering/pictures/") for name in held)
    in_wheel = {name for name in held if not name.split("/")[0].endswith(".dist-info")}
    assert in_wheel == in_checkout


def test_the_source_distribution_holds_what_a_build_needs(distributions: Path) -> None:
    (found,) = distributions.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE"} <= names
    assert not {name for name in names if name.startswith(("tests/", "dags/", "benchmarks/"))}


def test_the_metadata_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        said = HeaderParser().parsestr(archive.read(name).decode())
    assert said["Name"] == "airflow-provider-kling"
    assert said["Version"] == importlib.metadata.version("airflow-provider-kling")
    assert said["Requires-Python"] == ">=3.11"
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Author"] == "The airflow-provider-kling authors"
    urls = [each.split(", ")[0] for each in said.get_all("Project-URL", [])]
    assert urls == ["Documentation", "Source", "Issues", "Changelog"]  # Airflow shows the first of that name
    assert "Framework :: Apache Airflow :: Provider" in said.get_all("Classifier", [])
    needed = [each for each in said.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert not [each for each in needed if each.startswith(("av", "pi-heif", "pillow-heif"))]
    assert any("Pillow" in each for each in needed)


def test_airflow_lists_the_provider(installed: Path, tmp_path: Path) -> None:
    listed = run([installed / "airflow", "providers", "list", "-o", "json"], AIRFLOW_HOME=str(tmp_path))
    providers = {each["package_name"]: each for each in json.loads(listed[listed.index("[") :])}
    assert "airflow-provider-kling" in providers


def test_airflow_shows_the_connection_type(installed: Path, tmp_path: Path) -> None:
    listed = run([installed / "airflow", "providers", "hooks", "-o", "json"], AIRFLOW_HOME=str(tmp_path))
    hooks = {each["connection_type"]: each for each in json.loads(listed[listed.index("[") :])}
    assert hooks["kling"]["class"] == f"{PACKAGE}.hooks.kling.KlingHook"
    assert hooks["kling"]["hook_name"] == "Kling (AI/ML API)"


def test_it_brings_no_gpl_binary(installed: Path) -> None:
    listed = json.loads(run([installed / "python", "-m", "pip", "list", "--format", "json"]))
    assert not {"av", "pi-heif", "pillow-heif"} & {each["name"] for each in listed}


ADDED = """
import json
from importlib.metadata import distribution, distributions
from packaging.requirements import Requirement

def name_of(text):
    return text.lower().replace("_", "-").replace(".", "-")

def needed(name, extras=(), seen=None):
    seen = set() if seen is None else seen
    if (name, *sorted(extras)) in seen:
        return seen
    seen.add((name, *sorted(extras)))
    try:
        requires = distribution(name).requires or []
    except ImportError:
        return seen
    for each in map(Requirement, requires):
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            needed(name_of(each.name), tuple(each.extras), seen)
    return seen

of_airflow = {name for name, *_ in needed("apache-airflow")} | {"pip", "setuptools"}
added = {
    name_of(each.name): sum(
        each.locate_file(file).stat().st_size
        for file in each.files or ()
        if file.suffix != ".pyc" and each.locate_file(file).is_file()
    )
    for each in distributions()
    if name_of(each.name) not in of_airflow
}
print(json.dumps(added))
"""
MOST_ADDED = 35_000_000
"""Bytes of files that installing the provider may add to Airflow."""


def test_it_adds_little_to_airflow(installed: Path) -> None:
    added = json.loads(run([installed / "python", "-c", ADDED]))
    print(added)
    assert {"airflow-provider-kling", "pillow"} <= set(added)
    assert sum(added.values()) <= MOST_ADDED, added


@pytest.mark.skipif(LOCKED < "3", reason="README's DAG is written for Airflow 3")
def test_the_first_dag_of_the_readme_saves_a_verified_video(installed: Path, tmp_path: Path) -> None:
    (dag,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    dag_file = tmp_path / "dags" / "first.py"
    dag_file.parent.mkdir()
    dag_file.write_text(dag.replace("/data/", f"{tmp_path}/"))
    shutil.copy(ROOT / "dags" / "pictures" / "mona_lisa.jpg", tmp_path / "mug.jpg")
    with EmulatorThread(EmulatorOptions(generating_seconds=2)) as emulator:
        connection = {"conn_type": "kling", "host": emulator.url, "password": emulator.api_key}
        said = run(
            [installed / "python", ROOT / "scripts" / "run_dag.py", dag_file, "my_first_video", "download"],
            AIRFLOW_HOME=str(tmp_path / "airflow"),
            AIRFLOW__CORE__DAGS_FOLDER=str(dag_file.parent),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW_CONN_KLING_DEFAULT=json.dumps(connection),
        )
    path = Path(json.loads(said.splitlines()[-1])["returned"])
    assert path.parent == tmp_path / "videos"
    with path.open("rb") as video:
        assert read_mp4(video).duration == pytest.approx(5, abs=0.1)
    assert "5.00 s, " in said  # the task has read it, without a decoder


def test_the_emulator_s_command_is_there(installed: Path) -> None:
    assert "--port" in run([installed / "kling-emulator", "--help"])


def test_the_api_works_without_airflow(wheel: Path, tmp_path: Path) -> None:
    executables = environment(tmp_path)
    install(executables, *API_NEEDS)
    install(executables, "--no-deps", wheel)
    code = f"""
import importlib, importlib.util, pkgutil
import {PACKAGE}.api
assert importlib.util.find_spec("airflow") is None
names = [found.name for found in pkgutil.iter_modules({PACKAGE}.api.__path__)]
for name in names:
    importlib.import_module(f"{PACKAGE}.api.{{name}}")
print(*names)
"""
    assert "client" in run([executables / "python", "-c", code], PYTHONSAFEPATH="1").split()


def test_two_builds_of_a_commit_are_the_same(tmp_path: Path) -> None:
    built = {}
    for name in ("one", "other"):
        checkout, target = tmp_path / name, tmp_path / f"dist-{name}"
        for source in (*SOURCES, "scripts"):
            if (ROOT / source).is_dir():
                shutil.copytree(
                    ROOT / source, checkout / source, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                checkout.mkdir(exist_ok=True)
                shutil.copy(ROOT / source, checkout)
        for path in checkout.rglob("*"):
            os.utime(path, (len(built) * 1e6, len(built) * 1e6))
        run([sys.executable, checkout / "scripts" / "build.py", target], SOURCE_DATE_EPOCH="1700000000")
        built[name] = {path.name: path.read_bytes() for path in target.iterdir()}
    assert len(built["one"]) == 2
    assert built["one"] == built["other"]


def test_twine_finds_nothing_to_say(distributions: Path) -> None:
    files = sorted(distributions.iterdir())
    said = run([sys.executable, "-m", "twine", "check", "--strict", *files])
    assert said.count("PASSED") == len(files) == 2


def test_a_consumer_s_strict_mypy_passes(wheel: Path, tmp_path: Path) -> None:
    """With the package as it is installed, not with the checkout."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "consumer.py").write_text(CONSUMER)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", "consumer.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


CONSUMER = """
from __future__ import annotations

from airflow_provider_kling.api import KlingClient, Settings
from airflow_provider_kling.hooks.kling import KlingHook
from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor
from airflow_provider_kling.triggers.kling import KlingGenerationTrigger

generate = KlingGenerateOperator(task_id="generate", prompt="A paper boat.", duration=5)
wait = KlingGenerationSensor(task_id="wait", generation_id=generate.output)
download = KlingDownloadOperator(task_id="download", generation_id=generate.output, path="boat.mp4")
trigger = KlingGenerationTrigger(generation_id="x")
conn_id: str = KlingHook("kling_default").kling_conn_id
KlingClient(Settings(api_key="key")).close()
"""
