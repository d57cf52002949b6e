"""Starting and stopping the cluster: munged, MariaDB and slurmdbd for accounting, slurmctld, one slurmd per node."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from slurm_sim.config import GPUS_PER_NODE, NODES, Layout, database_setup, gres_conf, slurm_conf, slurmdbd_conf
from slurm_sim.daemons import Daemon, SimError, end_processes

PACKAGES = "slurm-wlm munge slurmdbd mariadb-server-core mariadb-client-core"
APT_LINE = f"apt-get update && apt-get install --yes --no-install-recommends {PACKAGES}"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db")
# Debian keeps the daemons where an ordinary user's PATH does not look.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])

# A step's socket lies at FOLDER/spool/NODE/NODE_JOB.STEP, and a socket's path has at most 107 characters.
LONGEST_FOLDER = 107 - len("/spool/tcml-node1/tcml-node1_67043328.4294967291")
# Below the ports that the kernel gives to outgoing connections.
PORTS = range(20_000, 32_000)
READY_S, STOP_S = 30.0, 10.0
FIRST_JOB_ERA = 1_577_836_800  # 2020-01-01; see _first_job_id


class Cluster:
    """The cluster of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.conf = self.folder / "slurm.conf"
        self.munged, self.database, self.slurmdbd, self.slurmctld = (
            Daemon(self.folder, name) for name in ("munged", "mariadbd", "slurmdbd", "slurmctld")
        )
        self.nodes = {name: Daemon(self.folder, name) for name in NODES}
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))},
            "PATH": SEARCH,
            "SLURM_CONF": str(self.conf),
        }

    # What is there --------------------------------------------------------------------------------------------

    def daemons(self) -> list[Daemon]:
        """All daemons, those without accounting too, in the order of their start."""
        return [self.munged, self.database, self.slurmdbd, self.slurmctld, *self.nodes.values()]

    def wanted(self) -> list[Daemon]:
        """The daemons that should run, by the last `up`; none before the first."""
        known = self._remembered()
        without = [] if known.get("accounting") else [self.database, self.slurmdbd]
        return [daemon for daemon in self.daemons() if daemon not in without] if known else []

    def is_up(self) -> bool:
        """Whether every daemon of the last `up` runs."""
        wanted = self.wanted()
        return bool(wanted) and all(daemon.pid() for daemon in wanted)

    def accounting(self) -> bool:
        """Whether the last `up` was with accounting."""
        return bool(self._remembered().get("accounting"))

    def node_states(self) -> dict[str, str]:
        """State by node, as sinfo says it (`idle`, `mixed`, `down*`, …). Raises SimError without an answer."""
        done = self._command("sinfo", "--noheader", "--Node", "--partition=test", "--format=%N %T")
        if done.returncode:
            raise SimError(f"sinfo gave no answer: {done.stderr.strip()}")
        return dict(line.split() for line in done.stdout.splitlines())

    # Up and down ----------------------------------------------------------------------------------------------

    def up(self, *, accounting: bool, all_users: bool = False) -> None:
        """Start what does not run, and return when every node takes jobs; `all_users`: of other users, too.

        Raises SimError when packages are missing (code 3), the folder can't be used (2) or a daemon does not
        start (1); then nothing that this call started is left.
        """
        if all_users and os.geteuid() != 0:
            raise SimError("only root can run jobs of other users: leave out --all-users", code=2)
        closed = [folder for folder in self.folder.resolve().parents if all_users and not folder.stat().st_mode & 0o001]
        if closed:
            raise SimError(f"other users can't look into {closed[0]}: chmod o+x it, or take another --dir", code=2)
        _check_programs(accounting)
        self._make_folder()
        with self._lock():
            running = [daemon for daemon in self.daemons() if daemon.pid()]
            if running and accounting != self.accounting():
                now = "with" if self.accounting() else "without"
                raise SimError(f"the cluster runs {now} accounting; take it down first to change that", code=2)
            try:
                layout = self._layout(accounting, keep_ports=bool(running))
                self._write(layout)
                if all_users:
                    self._open()
                else:
                    self.folder.chmod(0o700)  # it may have been open before
                self._start(layout)
            except BaseException:
                self._stop([daemon for daemon in self.daemons() if daemon not in running])
                raise

    def down(self) -> None:
        """Stop everything. Files stay, so that the next start is quicker and job ids continue. Harmless when down."""
        if self.folder.is_dir():
            with self._lock():
                self._stop(self.daemons())

    def remove(self) -> None:
        """`down`, and the folder is gone. Raises SimError (2) for a folder that is none of a cluster."""
        if not self.folder.exists():
            return
        if any(self.folder.iterdir()) and not (self.folder / "run").is_dir():
            raise SimError(f"{self.folder} is no folder of a cluster; it stays as it is", code=2)
        self.down()
        shutil.rmtree(self.folder)

    # Breaking things ------------------------------------------------------------------------------------------

    def kill_node(self, name: str, *, slurmd_only: bool) -> None:
        """SIGKILL a node as a power cut does: slurmd and all its jobs. Or slurmd alone: the jobs continue."""
        steps = [] if slurmd_only else self._job_processes(name)
        self.nodes[name].stop(STOP_S, kill=True)
        end_processes([*steps, *([] if slurmd_only else self._job_processes(name))], STOP_S, kill=True)

    def start_node(self, name: str) -> None:
        """Start a node's slurmd, unless it runs; returns when the node takes jobs again."""
        self._start_node(name)
        self._wait_for_nodes([name])

    def stop_controller(self) -> None:
        """Stop slurmctld: from then on no SLURM command gets an answer; running jobs continue."""
        self.slurmctld.stop(STOP_S)

    def start_controller(self) -> None:
        """Start slurmctld, unless it runs; returns when it answers."""
        self.slurmctld.start(["slurmctld", "-D", "-f", str(self.conf)], self.environ)
        self.slurmctld.wait_until(lambda: self._command("scontrol", "ping").returncode == 0, READY_S)

    # Parts ----------------------------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        text = str(self.folder)
        if len(text) > LONGEST_FOLDER:
            raise SimError(
                f"{text} is too long: sockets in it would have paths of more than 107 characters. "
                f"Choose a folder of at most {LONGEST_FOLDER} with --dir",
                code=2,
            )
        if any(c.isspace() or c in "#\\\"'%=," for c in text):
            raise SimError(f"{text!r} can't stand in slurm.conf; choose a plain path with --dir", code=2)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("run", "log", "state", "spool", "dev", *(f"spool/{node}" for node in NODES)):
                (self.folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise SimError(f"the folder can't be made: {error}", code=2) from error

    def _open(self) -> None:
        """Let other users reach what their commands and jobs need, whatever the umask; the rest is closed to them."""
        nodes = [f"spool/{node}" for node in NODES]
        for name, mode in {
            ".": 0o711,
            "run": 0o711,
            "dev": 0o711,
            "spool": 0o711,
            **dict.fromkeys(nodes, 0o755),
        }.items():
            (self.folder / name).chmod(mode)
        for name in ("slurm.conf", "gres.conf"):
            (self.folder / name).chmod(0o644)
        for name in ("state", "log"):
            (self.folder / name).chmod(0o700)
        (self.folder / "database.sql").chmod(0o600)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One `up` or `down` at a time."""
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _remembered(self) -> dict[str, object]:
        try:
            known = json.loads((self.folder / "cluster.json").read_text())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _layout(self, accounting: bool, keep_ports: bool) -> Layout:
        known = self._remembered()
        ports = known.get("ports")
        names = ["slurmctld", "slurmdbd", "mariadbd", *NODES]
        if not isinstance(ports, dict) or not (keep_ports or all(map(_is_free, ports.values()))):
            ports = dict(zip(names, _free_ports(len(names)), strict=True))
        layout = Layout(
            folder=self.folder,
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            ports=ports,
            accounting=accounting,
            first_job_id=int(str(known.get("first_job_id") or _first_job_id())),
        )
        remembered = {"ports": ports, "accounting": accounting, "first_job_id": layout.first_job_id}
        (self.folder / "cluster.json").write_text(json.dumps(remembered) + "\n")
        return layout

    def _write(self, layout: Layout) -> None:
        self.conf.write_text(slurm_conf(layout))
        (self.folder / "gres.conf").write_text(gres_conf(layout))
        dbd = self.folder / "slurmdbd.conf"
        dbd.touch(mode=0o600)
        dbd.write_text(slurmdbd_conf(layout))
        (self.folder / "database.sql").write_text(database_setup())
        key = self.folder / "run" / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(secrets.token_bytes(128))
        for number in range(GPUS_PER_NODE):
            gpu = self.folder / "dev" / f"gpu{number}"
            if not gpu.is_symlink():
                gpu.symlink_to(os.devnull)  # SLURM wants device files, which only root can make

    def _start(self, layout: Layout) -> None:
        munge = [f"--socket={layout.munge_socket}", f"--key-file={self.folder}/run/munge.key", "--num-threads=2"]
        files = [f"--{kind}-file={self.folder}/run/munged.own.{kind}" for kind in ("pid", "log", "seed")]
        if self.munged.pid() is None:
            layout.munge_socket.unlink(missing_ok=True)  # of one that was killed: it would look ready
        # --force: a group that may write to a folder above is no danger to a cluster of one user.
        self.munged.start(["munged", "--foreground", "--force", *munge, *files], self.environ)
        if layout.accounting:
            self._start_database(layout)
        self.munged.wait_until(layout.munge_socket.exists, READY_S)
        if layout.accounting:
            self.database.wait_until(lambda: _answers(layout.ports["mariadbd"]), READY_S)
            self.slurmdbd.start(["slurmdbd", "-D"], self.environ)  # reads slurmdbd.conf beside slurm.conf
            self.slurmdbd.wait_until(lambda: _answers(layout.ports["slurmdbd"]), READY_S)
        self.start_controller()
        for name in NODES:
            self._start_node(name)
        self._wait_for_nodes(list(NODES))

    def _start_database(self, layout: Layout) -> None:
        data = self.folder / "db"
        if not (data / "mysql").is_dir():
            fresh = self.folder / "db.new"  # renamed when it is whole
            shutil.rmtree(fresh, ignore_errors=True)
            command = ["mariadb-install-db", "--no-defaults", f"--datadir={fresh}", "--skip-test-db"]
            command += ["--auth-root-authentication-method=normal", f"--user={layout.user}"]
            done = subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SimError(f"the database could not be made: {done.stdout}{done.stderr}")
            fresh.rename(data)
        command = ["mariadbd", "--no-defaults", f"--datadir={data}", f"--user={layout.user}"]
        command += [f"--init-file={self.folder}/database.sql", f"--socket={self.folder}/run/mariadb.socket"]
        command += ["--bind-address=127.0.0.1", f"--port={layout.ports['mariadbd']}", "--skip-name-resolve"]
        # Small and quick: it holds some thousand rows, and nobody misses the last ones after a power cut.
        command += ["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"]
        command += [f"--pid-file={self.folder}/run/mariadbd.own.pid", "--innodb-lock-wait-timeout=900"]
        self.database.start(command, self.environ)

    def _start_node(self, name: str) -> None:
        if self.nodes[name].pid() is None:
            _remove_sockets(self.folder / "spool" / name)
        environ = {**self.environ, "SLURMD_NODENAME": name}  # marks slurmstepd too, see _job_processes
        self.nodes[name].start(["slurmd", "-D", "-N", name, "-f", str(self.conf)], environ)

    def _wait_for_nodes(self, names: list[str]) -> None:
        def taking_jobs() -> bool:
            states = self.node_states()
            return all(states.get(name) in ("idle", "mixed", "allocated", "completing") for name in names)

        for name in names:
            self.nodes[name].wait_until(taking_jobs, READY_S)

    def _stop(self, daemons: list[Daemon]) -> None:
        """Jobs first: they would outlive their slurmd."""
        for name, node in self.nodes.items():
            if node in daemons:
                end_processes(self._job_processes(name), STOP_S, kill=True)
        for daemon in reversed(daemons):
            daemon.stop(STOP_S)
        for name, node in self.nodes.items():
            if node in daemons:  # what a job started in between
                end_processes(self._job_processes(name), STOP_S, kill=True)

    def _job_processes(self, node: str) -> list[int]:
        """The processes of a node's jobs, and the slurmstepd above them: their environment names both."""
        wanted = {f"SLURM_CONF={self.conf}".encode(), f"SLURMD_NODENAME={node}".encode()}
        slurmd = self.nodes[node].pid()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) not in (slurmd, os.getpid()):
                with contextlib.suppress(OSError):
                    if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                        found.append(int(entry.name))
        return found

    def _command(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(words, env=self.environ, capture_output=True, text=True, timeout=READY_S, check=False)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 1, "", f"{words[0]} gave no answer in {READY_S:.0f} s")


def _check_programs(accounting: bool) -> None:
    wanted = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    missing = [name for name in wanted if shutil.which(name, path=SEARCH) is None]
    if missing:
        raise SimError(f"not installed: {', '.join(missing)}. On Debian and Ubuntu, as root:\n    {APT_LINE}", code=3)


def _first_job_id() -> int:
    """Minutes since 2020: a new cluster does not give out the ids of an earlier one, whose job folders are still
    there."""
    return max(1, int(time.time() - FIRST_JOB_ERA) // 60)


def _free_ports(count: int) -> list[int]:
    """A row of ports that nobody listens at, from a random place: clusters started at once seldom meet there."""
    for _ in range(1000):
        first = random.randrange(PORTS.start, PORTS.stop - count)
        row = list(range(first, first + count))
        if all(map(_is_free, row)):
            return row
    raise SimError(f"no {count} free ports in a row between {PORTS.start} and {PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the daemons do
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _remove_sockets(folder: Path) -> None:
    """Sockets of steps that died with their node; a new step of the same name could not be made."""
    for path in folder.iterdir():
        if path.is_socket():
            path.unlink()
