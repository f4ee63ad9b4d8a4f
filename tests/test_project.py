"""The project's own files: what the README promises is there and fits."""

import ast
import functools
import importlib
import json
import pkgutil
import re
import shlex
import subprocess
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml

import cluster
import gazecore
import gazecore.errors
import jobs
from gazecore.density.summary import statistics
from gazecore.results.schema import DENSITIES, SCORES
from gazecore.shards.plan import PLAN
from jobs.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]


def test_the_cluster_file_fits_rays_own_schema() -> None:
    config = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    worker = config["available_node_types"]["gpu_worker"]
    assert worker["min_workers"] == 0
    assert worker["resources"]["GPU"] == 1
    assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert config["head_node_type"] in config["available_node_types"]


def test_the_error_tree_in_the_docstring_is_complete() -> None:
    for package in (gazecore, cluster, jobs):  # an error is seen wherever it is defined
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    ours = [
        cls
        for cls in subclasses(BaseException)
        if cls.__module__.split(".")[0] in ("gazecore", "cluster", "jobs")
        and cls is not gazecore.errors.Interrupted  # which is no error
    ]
    assert {cls.__module__ for cls in ours} == {"gazecore.errors"}
    parents, line = {}, re.compile(r"^    ([ │├└─]*)(\w+)(?: +(\w+)|$)", re.MULTILINE)
    branch: list[str] = []
    for drawn, name, word in line.findall(gazecore.errors.__doc__ or ""):
        branch[len(drawn) // 4 :] = [name]
        parents[name] = branch[-2] if len(branch) > 1 else "Exception"
        cls = getattr(gazecore.errors, name)
        if parents[name] == "ImageError":
            assert cls.code == word, cls
    assert parents == {cls.__name__: cls.__bases__[0].__name__ for cls in ours}
    codes = [cls.code for cls in ours if issubclass(cls, gazecore.errors.ImageError)]
    assert len(set(codes)) == len(codes) > 7
    document = (ROOT / "docs" / "results-format.md").read_text()
    [listed] = [line for line in document.splitlines() if line.startswith("| `error` |")]
    assert set(re.findall(r"`(\w+)`", listed)) - {"error"} == set(codes) - {"image_error"}


def subclasses(cls: type) -> set[type]:
    """Those that are defined by now, and theirs."""
    found = set(type.__subclasses__(cls))
    return found.union(*map(subclasses, found))


def test_every_statistic_has_its_column_and_every_column_its_line_in_the_docs() -> None:
    import numpy as np

    uniform = np.full((8, 8), -np.log(64), dtype=np.float32)
    names = statistics(uniform, uniform[None], uniform, 10, 10).keys()
    assert set(names) <= set(SCORES.names)
    document = (ROOT / "docs" / "results-format.md").read_text()
    for schema in (PLAN, SCORES, DENSITIES):
        for name in schema.names:
            assert f"`{name}`" in document, name


def commands_in(text: str) -> list[list[str]]:
    """The `gazecore ...` lines of a document's shell blocks, continuation lines joined."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("gazecore ")]


@pytest.mark.parametrize("name", ["README.md", *sorted(p.name for p in ROOT.glob("docs/*.md"))])
def test_commands_in_the_documents_parse(name: str) -> None:
    import tyro

    path = ROOT / name if name == "README.md" else ROOT / "docs" / name
    for _, command, *arguments in commands_in(path.read_text()):
        assert command in COMMANDS
        module = importlib.import_module(f"jobs.{command}")
        options = getattr(module, f"{command.capitalize()}Options")
        tyro.cli(options, args=arguments)


def test_lines_of_the_documents_are_of_one_width() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        lines = [line for line in text.splitlines() if not line.startswith("|")]
        too_long = [line for line in lines if len(line) > 120 and "](" not in line]
        assert too_long == [], path.name


def test_files_that_the_documents_name_are_there() -> None:
    named = re.compile(r"`((?:tests|gazecore|cluster|jobs|benchmarks|deploy)/[\w./-]*)`")
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "LOG.md"]
    found = {(path.name, name) for path in documents for name in named.findall(path.read_text())}
    assert len(found) > 30
    assert [each for each in sorted(found) if not (ROOT / each[1]).exists()] == []


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    for path in [*ROOT.glob("gazecore/**/*.py"), *ROOT.glob("cluster/*.py")]:
        assert len(path.read_text().splitlines()) <= 330, path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_loads_nothing_that_computes(command: str) -> None:
    """Those libraries take seconds and a gigabyte; help and mistakes are answered at once."""
    program = f"""if True:
        import sys
        from jobs.__main__ import main
        sys.argv = ["gazecore", "{command}", "--help"]
        try:
            main()
        finally:
            print(*sys.modules, file=sys.stderr)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], text=True, cwd=ROOT, capture_output=True, check=True
    )
    assert f"usage: gazecore {command}" in done.stdout
    heavy = {"torch", "ray", "matplotlib", "duckdb", "pyarrow", "scipy", "fsspec", "botocore"}
    assert f"jobs.{command}" in done.stderr.split()
    if command == "ingest":  # whose importers have their options beside them
        heavy -= {"pyarrow", "scipy", "fsspec", "botocore"}
    assert heavy.isdisjoint(done.stderr.split())


def test_a_submodule_that_is_used_is_imported_by_name() -> None:
    """`pa.csv` is there only once somebody, perhaps another module, has imported pyarrow.csv."""
    missing = []
    for path in [
        p for room in ("gazecore", "cluster", "jobs") for p in ROOT.glob(f"{room}/**/*.py")
    ]:
        tree = ast.parse(path.read_text())
        aliases = [n for i in ast.walk(tree) if isinstance(i, ast.Import) for n in i.names]
        packages = {n.asname or n.name: n.name for n in aliases if "." not in (n.asname or n.name)}
        named = {n.name for n in aliases}
        for use in ast.walk(tree):
            if isinstance(use, ast.Attribute) and isinstance(use.value, ast.Name):
                package = packages.get(use.value.id)
                used = f"{package}.{use.attr}"
                if package and used not in named and is_submodule(package, use.attr):
                    missing.append(f"{path.relative_to(ROOT)}:{use.lineno}: {used}")
    assert missing == []


@functools.cache
def is_submodule(package: str, name: str) -> bool:
    """Whether it is a module that importing the package alone does not bring."""
    program = f"import {package}; exit(hasattr({package}, '{name}'))"
    search = getattr(importlib.import_module(package), "__path__", None)
    if search is None or PathFinder.find_spec(f"{package}.{name}", search) is None:
        return False
    return subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_reads_runs_and_images_needs_no_torch() -> None:
    names = ("results.reader", "results.query", "results.export", "images.decode", "images.listing")
    program = f"import {', '.join(f'gazecore.{name}' for name in names)}, sys; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT).split()
    assert "gazecore.images.decode" in modules
    assert {"torch", "ray", "matplotlib"}.isdisjoint(modules)


def test_what_the_documented_commands_leave_in_a_checkout_is_ignored() -> None:
    """By git, and so by Ray, which sends a checkout to a cluster."""
    documents = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    left = {
        arguments[arguments.index("--out") + 1].split("/")[0]
        for document in documents
        for arguments in commands_in(document.read_text())
        if "--out" in arguments
    }
    left = {name for name in left if not name.endswith(":")}  # of a storage
    assert len(left) > 8
    done = subprocess.run(
        ["git", "check-ignore", "--stdin"], input="\n".join(f"{name}/x" for name in sorted(left)),
        text=True, capture_output=True, cwd=ROOT, check=False,
    )  # fmt: skip
    if "not a git repository" in done.stderr:
        pytest.skip("no checkout here")
    ignored = {line.split("/")[0] for line in done.stdout.splitlines()}
    assert left - ignored == set()
