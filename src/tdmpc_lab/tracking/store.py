"""Where the MLflow store is, and opening it so that several jobs may do so at once."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urlsplit

from tdmpc_lab.config.project import FILE, URI_HELP, tracking_config
from tdmpc_lab.errors import ExternalError, LabError, UsageError
from tdmpc_lab.files import file_lock
from tdmpc_lab.sharing import is_shared, whose

if TYPE_CHECKING:
    from mlflow import MlflowClient

URI_VARIABLE = "MLFLOW_TRACKING_URI"
LOCAL_UI = "http://127.0.0.1:5000"
_SQLITE = "sqlite:///"
_WEB = ("http", "https")
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*)?")
_DRIVERS = {"postgresql": ("psycopg2", "psycopg"), "mysql": ("mysqldb",), "mssql": ("pyodbc",)}
"""Database servers, with the packages of which SQLAlchemy takes one where the URI names none."""
_MODULE_OF = {"mysqldb": "MySQLdb", "mysqlconnector": "mysql"}  # where a driver is called otherwise
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_UNITY_CATALOG = ("databricks-uc", "uc")
_NEEDS_CREDENTIALS = "databricks"
_VERSION = "alembic_version"  # the table with the version of a database's tables
_SQLITE_HEADER = b"SQLite format 3\0"
_ASK_MLFLOW = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments(max_results=1)"
_PLAIN_FOLDERS = "MLFLOW_ALLOW_FILE_STORE"
"""The variable by which MLflow allows them all the same."""
ALLOWED_HOSTS = "127.0.0.1:*,localhost:*"
"""What a browser may call the server, on any port of a tunnel: a page elsewhere that makes its own name mean this
machine reads nothing."""
_SETTINGS = {
    # A server that is down must be noticed in seconds; MLflow's own defaults take minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a job's log.out is the user's
    "MLFLOW_DISABLE_TELEMETRY": "true",  # compute nodes have no internet
}


def store_uri(project_root: Path) -> str:
    """The store: MLFLOW_TRACKING_URI where it is set, else `tracking.uri` of the project's `tdmpc-lab.yaml`, else
    `mlruns/mlflow.db` in the project.

    A relative SQLite path is taken from the project's folder, so that every command and every job means the
    same file.

    Raises:
        SpecError: `tdmpc-lab.yaml` is wrong.
        UsageError: no SQLite URI can name the path.
    """
    uri = os.environ.get(URI_VARIABLE, "").strip() or tracking_config(project_root).uri or ""
    root = project_root.absolute()
    path = sqlite_path(uri) if uri else root / "mlruns" / "mlflow.db"
    if path is None:
        return uri
    path = root / path
    if "?" in str(path):
        raise UsageError(
            f"the MLflow store can't be at {path}: a SQLite URI ends at the '?'. "
            f"Rename that folder, set {URI_VARIABLE}, or tracking.uri in {FILE}"
        )
    return f"{_SQLITE}{path}"


def sends_itself(project_root: Path, cluster: str) -> bool:
    """Whether a job on this cluster (`local`, `slurm`, `debug`) sends MLflow its values while it runs.

    SLURM jobs run on many machines, and a SQLite file on a network file system is broken by that: they leave their
    values to `sync` unless the store is a server, or `tracking.slurm_jobs` says otherwise. Raises like `store_uri`.
    """
    if cluster != "slurm":
        return True
    chosen = tracking_config(project_root).slurm_jobs
    return chosen == "live" if chosen is not None else sqlite_path(store_uri(project_root)) is None


def store_problem(root: Path, timeout_s: float = 3.0) -> str:
    """Why the store can't be used from here, "" when it can as far as a look tells. Loads no MLflow.

    A server is asked for its health, a database server for a connection; of a SQLite file it is seen that it is one, of
    this MLflow, and that it and its folder can be written.
    """
    try:
        uri = store_uri(root)
    except LabError as error:
        return str(error)
    if problem := uri_problem(uri):
        return problem
    path = sqlite_path(uri)
    if path is not None:
        return sqlite_problem(path)
    if _taken_apart(uri)[0] not in _WEB:
        return _unreachable_database(uri, timeout_s)
    import urllib.request

    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout_s):
            return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return f"the MLflow server {public_uri(uri)} does not answer: {reason}"


def uri_problem(uri: str) -> str:
    """Why MLflow would not take this for a store, "" where it would. Loads no MLflow."""
    try:
        kind, parts = _taken_apart(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"the MLflow store {public_uri(uri)!r} is no address ({error}): write {URI_HELP}"
    scheme, _, driver = kind.partition("+")
    if scheme in (*_WEB, *_DRIVERS):
        if not host:
            return f"the MLflow store {public_uri(uri)!r} names no host: write {URI_HELP}"
        return _missing_driver(scheme, driver)
    plain = scheme in ("", "file") and os.environ.get(_PLAIN_FOLDERS) and not _HOST_AND_PORT.fullmatch(uri)
    if (scheme or uri) in _UNITY_CATALOG:
        return (
            f"the MLflow store {public_uri(uri)!r} is a Unity Catalog, which holds models and no runs: write {URI_HELP}"
        )
    kept_by_mlflow = plain or (scheme or uri) == _NEEDS_CREDENTIALS
    if kept_by_mlflow or sqlite_path(uri) is not None:
        return ""
    return f"the MLflow store {public_uri(uri)!r} {_what_is_wrong(uri, scheme)}: write {URI_HELP}"


def _taken_apart(uri: str) -> tuple[str, SplitResult]:
    """Scheme and parts of a URI. Raises ValueError. A scheme with a driver may hold what urlsplit takes for none."""
    scheme, colon, rest = uri.partition("://")
    return (scheme.lower(), urlsplit(f"x://{rest}")) if colon else (urlsplit(uri).scheme, urlsplit(uri))


def _what_is_wrong(uri: str, scheme: str) -> str:
    """What is wrong with a URI that MLflow has no store for."""
    if _HOST_AND_PORT.fullmatch(uri):
        return f"does not say how it is asked (did you mean http://{uri}?)"
    if scheme == "sqlite":
        return "names no file"
    if scheme in ("", "file"):
        return "is a plain folder, in which MLflow keeps no runs any more"
    near = get_close_matches(scheme, (*_WEB, "sqlite", *_DRIVERS), n=1)
    meant = f" (did you mean {near[0]}://…?)" if near else ""
    return f"is of no kind that MLflow knows{meant}"


def _missing_driver(scheme: str, driver: str) -> str:
    """What Python package a database server needs and is not here; "" where nothing is missing."""
    names = (driver,) if driver else _DRIVERS.get(scheme, ())
    if not names or any(find_spec(_MODULE_OF.get(name, name)) is not None for name in names):
        return ""
    return f"the MLflow store is a {scheme} server, and the Python package for it is not here: {' or '.join(names)}"


def _unreachable_database(uri: str, timeout_s: float) -> str:
    """Why a database server is not reached, "" where it is, or where its address is not known from the URI."""
    kind, parts = _taken_apart(uri)
    port = parts.port or _PORTS.get(kind.partition("+")[0])
    if not parts.hostname or port is None:
        return ""
    try:
        with socket.create_connection((parts.hostname, port), timeout_s):
            return ""
    except OSError as error:
        return f"the MLflow store {public_uri(uri)} does not answer: {error}"


def sqlite_problem(path: Path) -> str:
    """Why MLflow can keep no runs in a SQLite file, or this user can't write it; "" where all is well."""
    if path.name == ":memory:":
        return f"the MLflow store {path} would be a file of that name, and a database in memory keeps nothing"
    if path.is_dir():
        return f"the MLflow store {path} is a folder: name a file in it"
    for there in (path, path.parent):
        if os.path.lexists(there) and not os.access(there, os.W_OK):
            return f"the MLflow store {path} can't be written: {whose(there)}"
    import tempfile

    there = next(p for p in path.parents if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there):  # SQLite writes a journal beside the file, too
            pass
    except OSError as error:
        why = whose(there) if isinstance(error, PermissionError) else error.strerror or str(error)
        return f"the MLflow store {path} can't be written: {there}: {why}"
    return _foreign_database(path) if path.is_file() and path.stat().st_size > 0 else ""


def _foreign_database(path: Path) -> str:
    """Why a file is no database of this version of MLflow, or of an older one; "" where it is."""
    with path.open("rb") as file:
        if file.read(len(_SQLITE_HEADER)) != _SQLITE_HEADER:
            return f"the MLflow store {path} is no SQLite database: another file has this name"
    import sqlite3

    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            versions = database.execute(f"SELECT version_num FROM {_VERSION}").fetchall() if _VERSION in tables else []
    except sqlite3.Error as error:
        return f"the MLflow store {path} can't be read: {error}"
    known = _known_versions()
    if newer := [str(row[0]) for row in versions if known and str(row[0]) not in known]:
        return (
            f"the MLflow store {path} was made by another version of MLflow (its tables are {newer[0]}): update MLflow"
        )
    return ""


def _known_versions() -> set[str]:
    """The versions of its tables that the MLflow installed here knows, by the names of its migrations; none without."""
    found = find_spec("mlflow")  # loads nothing
    folders = (found.submodule_search_locations if found is not None else None) or []
    names = (path.name for folder in folders for path in Path(folder, "store/db_migrations/versions").glob("*.py"))
    return {name.partition("_")[0] for name in names}


def refused_by_mlflow(uri: str, timeout_s: float = 60.0) -> str:
    """What MLflow itself says against a store whose problems only it can know (credentials); "" for nothing."""
    if not uri.startswith(_NEEDS_CREDENTIALS):
        return ""
    configure()
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _ASK_MLFLOW, uri],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the MLflow store {public_uri(uri)} gave no answer in {timeout_s:.0f} s"
    if done.returncode == 0:
        return ""
    words = done.stderr.strip().splitlines() or ["no message"]
    return f"MLflow refuses {public_uri(uri)}: {words[-1]}"


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite URI; None for any other store."""
    if not uri.startswith(_SQLITE) or len(uri) == len(_SQLITE):
        return None
    return Path(uri.removeprefix(_SQLITE))


def public_uri(uri: str) -> str:
    """The URI without a password, for messages and files."""
    return re.sub(r"(?<=://)[^/@\s]*@", "***@", uri)


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where an experiment's artifacts go: beside a SQLite store, `artifacts/<experiment>`, as a file URI.

    None for a server, which decides by itself.
    """
    path = sqlite_path(uri)
    if path is None:
        return None
    name = quote(experiment, safe="")
    if not name.strip("."):
        name = name.replace(".", "%2E")
    return (path.parent / "artifacts" / name).as_uri()


def ensure_store(uri: str, root: Path) -> None:
    """Create the store if it is a SQLite file that is not there yet; safe in many processes at once.

    Raises OSError, and MLflow's own errors when it can't be opened.
    """
    open_client(uri, root)


def open_client(uri: str, root: Path) -> MlflowClient:
    """A client whose store exists. `root` is the project's folder.

    Raises OSError, ExternalError where it is no store or a SQLite file that can't be written, and MLflow's own errors
    when the store can't be opened.
    """
    configure()
    from mlflow import MlflowClient

    _quiet()
    path = sqlite_path(uri)
    if problem := uri_problem(uri) or ("" if path is None else sqlite_problem(path)):
        raise ExternalError(problem)
    with store_lock(uri, root):
        if path is not None and not path.exists():
            create_sqlite(path)
        # MLflow also brings an older store up to its own version here, in the constructor or the first call.
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def create_sqlite(path: Path) -> None:
    """Make an empty store beside `path` and move it there when it is whole; the caller holds the lock.

    MLflow builds its tables in many steps, some seconds in all, and can't use a store that was left half built:
    a job that ends or is killed meanwhile must not leave one. In a process of its own, so that no connection
    to the file is open when it is moved.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    new.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _ASK_MLFLOW, f"{_SQLITE}{new}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        new.unlink(missing_ok=True)
        words = done.stderr.strip().splitlines() or ["no message"]
        raise OSError(f"the MLflow store {path} can't be created: {words[-1]}")
    if is_shared(path.parent):
        new.chmod(0o660)  # SQLite never makes a file writable by the group; its journals get the mode of the database
    new.replace(path)


@contextlib.contextmanager
def store_lock(uri: str, root: Path) -> Iterator[None]:
    """Held while a SQLite store is created or gets a new experiment; nothing for a server."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    mlruns = root.absolute() / "mlruns"
    folder = mlruns if path.parent == mlruns else path.parent
    with file_lock(folder / ".lock"):
        yield


def configure() -> None:
    """Settings that MLflow reads from the environment; what the user has set is kept."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def _quiet() -> None:
    """The mirror reports what goes wrong, once and in words: no tracebacks of retries in the job's log."""
    levels: dict[str, Any] = {
        "mlflow": logging.ERROR,
        "mlflow.store.db.utils": logging.CRITICAL,
        "alembic": logging.ERROR,
        "urllib3.connectionpool": logging.ERROR,
    }
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def ui_command(uri: str, root: Path, port: int) -> list[str]:
    """The command that shows the store in a browser, on this machine only (127.0.0.1)."""
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    if sqlite_path(uri) is not None:
        command += ["--default-artifact-root", (root.absolute() / "mlruns" / "artifacts").as_uri()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [*command, "--allowed-hosts", ALLOWED_HOSTS]  # else MLflow answers to names of the local network too


def run_url(base: str, experiment_id: str, run_id: str) -> str:
    """The page of one run."""
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def web_address(store: str) -> str:
    """Where a browser finds a store: a server itself, any other through `tdmpc-lab ui` on its usual port."""
    return store if store.startswith(("http://", "https://")) else LOCAL_UI
