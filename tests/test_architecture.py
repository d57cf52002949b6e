"""What no linter knows of this code base: who imports whom, what is loaded when, how long a module may be."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from house import arrows, circles, functions, imports, module_name  # noqa: E402

PACKAGE = ROOT / "src" / "tdmpc_lab"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A part (a package, or a module of the top level) may import every part of a lower layer.
BASE = "base"  # the modules of the top level: errors, files and the like
LAYERS = {
    BASE: 0,
    "config": 1,
    "agent": 2,
    "envs": 2,
    "training": 2,
    "jobs": 2,
    "tracking": 2,
    "launch": 3,
    "notes": 3,
    "report": 3,
    "app": 4,
    "cli": 5,
}
SIDEWAYS = {("training", "agent"), ("training", "envs"), ("tracking", "jobs")}
AGENT_MAY_IMPORT = {"tdmpc_lab.errors", "tdmpc_lab.config.schema", "tdmpc_lab.config.rules"}

# Which parts, or single modules, may import a package that is not of the standard library.
THIRD_PARTY = {
    "torch": {"agent", "training"},
    "numpy": {"agent", "envs", "training", "report"},
    "gymnasium": {"envs"},
    "Box2D": {"envs.hockey.rink"},
    "pygame": {"envs.hockey.rendering", "envs.hockey.original_api"},
    "hockey": {"envs.hockey.single"},
    "dm_control": {"envs.dmc"},
    "submitit": {"launch"},
    "mlflow": {"tracking"},
    "av": {"training.video"},
    "pandas": {"report"},
    "matplotlib": {"report"},
    "scipy": {"report"},
    "pydantic": {"config"},
    "yaml": {"files", "yaml_strict"},
    "rich": {"cli", "training.progress"},
}
AGENT_THIRD_PARTY = {"torch", "numpy"}

HEAVY = ("torch", "mlflow", "pandas", "scipy", "submitit", "gymnasium", "pydantic")
LONGEST_MODULE = 900  # an alarm: one subject a file is the rule, whatever its length
LONGEST_FUNCTION = 80

# Written in two halves, so that this file does not name what it looks for.
FORBIDDEN_TEXT = [
    re.compile(re.escape("".join(halves)), re.IGNORECASE)
    for halves in [
        ("pypi", ".org"),
        ("pythonhosted", ".org"),
        ("download.pytorch", ".org"),
        ("registry.npmjs", ".org"),
        ("deb.debian", ".org"),
        ("crates", ".io"),
        ("proxy.golang", ".org"),
        ("conda.anaconda", ".org"),
    ]
] + [re.compile(r"(?<![\w.~/-])/" + r"work/")]
NOT_OURS = {".git", ".venv", ".slurm-sim", "gpu-check", "build", "dist", "__pycache__"}
MADE_BY_JOBS = {ROOT / name for name in ("jobs", "notes", "mlruns")}


def part_of(module: str) -> str:
    """The part that a module of the package belongs to."""
    inner = module.split(".")[1:]
    if not inner or (inner[0] not in LAYERS and not (PACKAGE / inner[0]).is_dir()):
        return "cli" if inner == ["__main__"] else BASE
    return inner[0]


def violation(importer: str, imported: str) -> str | None:
    """Why `importer`, a module of the package, must not import `imported`; None when it may."""
    part, inner = part_of(importer), importer.removeprefix("tdmpc_lab.")
    top = imported.partition(".")[0]
    if top in sys.stdlib_module_names:
        return None
    if top != "tdmpc_lab":
        allowed = THIRD_PARTY.get(top, set())
        forbidden = part == "agent" and top not in AGENT_THIRD_PARTY
        if allowed & {part, inner} and not forbidden:
            return None
        return f"{top} is for {', '.join(sorted(allowed)) or 'no part'} only, see THIRD_PARTY"
    target = part_of(imported)
    if part == "agent" and target != part:
        allowed = AGENT_MAY_IMPORT
        return None if imported in allowed else f"agent may import {', '.join(sorted(allowed))} only"
    if target == part or LAYERS[target] < LAYERS[part] or (part, target) in SIDEWAYS:
        return None
    return f"{part} (layer {LAYERS[part]}) must not import {target} (layer {LAYERS[target]})"


def test_every_part_has_a_layer() -> None:
    parts = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert parts <= set(LAYERS), "give the new package a layer in LAYERS"
    assert MODULES


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_texts_are_read_and_written_in_a_named_encoding(path: Path) -> None:
    """The locale's own is another one on every machine: what one wrote, another can't read, or reads wrongly."""
    assert unnamed_encodings(path.read_text(encoding="utf-8")) == []


def unnamed_encodings(source: str) -> list[int]:
    """The lines with a call that reads or writes text in the locale's encoding."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        method = isinstance(call.func, ast.Attribute)
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = {word.arg for word in call.keywords}
        mode = call.args[0 if method else 1] if len(call.args) > (not method) else ast.Constant("r")
        text_file = name == "open" and isinstance(mode, ast.Constant) and "b" not in str(mode.value)
        text_pipe = name in ("run", "Popen", "check_output") and "text" in given
        if (name in ("read_text", "write_text") or text_file or text_pipe) and "encoding" not in given:
            found.append(call.lineno)
    return found


def test_an_unnamed_encoding_is_found() -> None:
    source = """
        path.read_text()
        path.write_text(text, encoding="utf-8")
        open(path)
        path.open("w", encoding="utf-8")
        path.open("rb")
        os.open(path, os.O_RDONLY)
        subprocess.run(words, text=True, errors="replace")
    """
    assert unnamed_encodings(textwrap.dedent(source)) == [2, 4, 8]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_downward(path: Path) -> None:
    name = module_name(path)
    found = [
        f"{path.relative_to(ROOT)}:{line}: imports {imported}: {problem}"
        for line, imported in imports(path.read_text(), name, is_package=path.name == "__init__.py")
        if (problem := violation(name, imported))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_module_grows_too_long(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LONGEST_MODULE, f"{path.relative_to(ROOT)} has {lines} lines: split it by subject"


def test_no_function_grows_too_long() -> None:
    found = [(path, name, lines) for path in MODULES for name, lines in functions(path) if lines > LONGEST_FUNCTION]
    assert not found


def test_no_modules_import_each_other() -> None:
    """Neither at their tops, nor in functions, nor for types alone: who reads one would have to read the other."""
    assert circles(arrows()) == []


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module_name(path))
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"g"}, "g": {"f"}}
    assert circles(graph) == [["a", "b", "c"], ["f", "g"]]


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("tdmpc_lab.config.loader", "tdmpc_lab.errors", True),
        ("tdmpc_lab.config.loader", "tdmpc_lab.jobs.paths", False),
        ("tdmpc_lab.errors", "tdmpc_lab.config", False),
        ("tdmpc_lab.training.loop", "tdmpc_lab.agent.agent", True),
        ("tdmpc_lab.training.loop", "tdmpc_lab.jobs.paths", False),
        ("tdmpc_lab.agent.agent", "tdmpc_lab.config.schema", True),
        ("tdmpc_lab.agent.agent", "tdmpc_lab.config.loader", False),
        ("tdmpc_lab.agent.agent", "tdmpc_lab.files", False),
        ("tdmpc_lab.tracking.mirror", "tdmpc_lab.jobs.paths", True),
        ("tdmpc_lab.jobs.paths", "tdmpc_lab.tracking.store", False),
        ("tdmpc_lab.notes.render", "tdmpc_lab.launch", False),
        ("tdmpc_lab.app.run.worker", "tdmpc_lab.cli.main", False),
        ("tdmpc_lab.__main__", "tdmpc_lab.cli.main", True),
        ("tdmpc_lab.training.loop", "torch.nn", True),
        ("tdmpc_lab.app.run.worker", "torch", False),
        ("tdmpc_lab.training.progress", "rich.progress", True),
        ("tdmpc_lab.training.loop", "rich.progress", False),
        ("tdmpc_lab.app.run.worker", "requests", False),
        ("tdmpc_lab.app.run.worker", "os.path", True),
    ],
)
def test_the_rules_themselves(importer: str, imported: str, allowed: bool) -> None:
    assert (violation(importer, imported) is None) == allowed


def test_every_kind_of_import_is_found() -> None:
    source = textwrap.dedent(
        """
        import os.path, torch
        from tdmpc_lab import errors
        from tdmpc_lab.errors import LabError
        from . import schema
        from .schema import Spec
        from ..errors import SpecError
        if TYPE_CHECKING:
            import gymnasium
        def later():
            import mlflow
            importlib.import_module("pandas")
            import_module(name)
        """
    )
    found = {name for _, name in imports(source, "tdmpc_lab.config.loader", is_package=False)}
    assert found == {
        *("os.path", "torch", "gymnasium", "mlflow", "pandas"),
        *("tdmpc_lab.errors", "tdmpc_lab.config.schema"),
    }
    inside = {name for _, name in imports("from . import schema", "tdmpc_lab.config", is_package=True)}
    assert inside == {"tdmpc_lab.config.schema"}


def run_python(code: str) -> str:
    """Output of `code` in a Python of its own, which must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_starts_without_the_heavy_packages() -> None:
    modules = ["tdmpc_lab", *(name for name in ("tdmpc_lab.cli", "tdmpc_lab.cli.main") if exists(name))]
    code = f"import sys, {', '.join(modules)}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    assert run_python(code).split() == []


def exists(module: str) -> bool:
    return module in {module_name(path) for path in MODULES}


def test_the_agent_needs_torch_and_numpy_only() -> None:
    """Every package that is installed is hidden, but for torch, numpy and what torch itself needs."""
    modules = [module_name(path) for path in MODULES if part_of(module_name(path)) == "agent"]
    code = f"""
        import re, sys
        from importlib.abc import MetaPathFinder
        from importlib.metadata import PackageNotFoundError, packages_distributions, requires

        def folded(name):
            return re.sub(r"[-_.]+", "-", name).lower()

        kept, waiting = set(), ["torch", "numpy", "tdmpc-lab"]
        while waiting:
            name = folded(re.split(r"[^A-Za-z0-9._-]", waiting.pop(), maxsplit=1)[0])
            if name in kept:
                continue
            kept.add(name)
            try:
                needed = requires(name) or []
            except PackageNotFoundError:
                continue
            if name != "tdmpc-lab":
                waiting += [text for text in needed if "extra ==" not in text]

        owners = packages_distributions()
        hidden = {{top for top in owners if not kept & set(map(folded, owners[top]))}}
        assert {{"mlflow", "gymnasium", "pydantic", "yaml", "rich"}} <= hidden, "the test hides nothing"

        class Hiding(MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in hidden:
                    raise ModuleNotFoundError(name + " is hidden", name=name)

        sys.meta_path.insert(0, Hiding())
        for module in {modules!r}:
            __import__(module)
        print(*[name for name in sys.modules if name.startswith("tdmpc_lab.")])
        """
    loaded = set(run_python(textwrap.dedent(code)).split())
    assert {part_of(name) for name in loaded} <= {"agent", "config", BASE}
    assert set(modules) - {"tdmpc_lab"} <= loaded


def own_files() -> Iterator[Path]:
    """Every file of the repository, without what tools and jobs leave behind."""
    for folder, names, files in os.walk(ROOT):
        here = Path(folder)
        names[:] = [
            name
            for name in names
            if name not in NOT_OURS
            and here / name not in MADE_BY_JOBS
            and not name.endswith(("_cache", ".egg-info", ".hypothesis"))
            # somebody's own virtual environment
            and not (here / name / "pyvenv.cfg").exists()
        ]
        # `.git` is a file in a worktree
        yield from (here / name for name in files if name != ".git" and not name.startswith(".coverage"))


def test_no_text_names_a_registry_or_a_path_of_one_machine() -> None:
    found = []
    for path in own_files():
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), start=1):
            found += [
                f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
                for pattern in FORBIDDEN_TEXT
                if pattern.search(line)
            ]
    assert not found, "\n".join(found)


def test_the_forbidden_texts_are_recognised() -> None:
    texts = ["see https://pypi" + ".org/project/x", "cd /work" + "/main", 'Path("/work' + '/x")']
    assert all(any(pattern.search(text) for pattern in FORBIDDEN_TEXT) for text in texts)
    fine = ["the path/to/work/folder", "a network/work/life", "see /home/me/work/x", "pip install x"]
    assert not any(pattern.search(text) for text in fine for pattern in FORBIDDEN_TEXT)
