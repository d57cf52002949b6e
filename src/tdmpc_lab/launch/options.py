"""sbatch's options: which there are, which have a key of their own, which the submission sets itself."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator

from tdmpc_lab.config.schema import SlurmConfig
from tdmpc_lab.errors import Problem

# Options with a key of their own in the spec that always has a value.
_OWN_KEYS = {"time": "slurm.time", "cpus-per-task": "slurm.cpus", "job-name": "name", "comment": "about"}
# Options that ask for the same as a key of the spec: one of the two can be set.
_ONE_OF_TWO = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "exclude": "exclude",
    "nodelist": "nodelist",
    "mail-type": "mail",
    "mail-user": "mail",
    "dependency": "after",
    "gres": "gpus",
    "gpus": "gpus",
    "gpus-per-node": "gpus",
    "gpus-per-task": "gpus",
    "gpus-per-socket": "gpus",
    "mem": "memory",
    "mem-per-cpu": "memory",
    "mem-per-gpu": "memory",
    "container": "container",
}
MEMORY_INSTEAD = ("mem", "mem-per-cpu", "mem-per-gpu")
# Options that the submission needs for itself, and why.
_REQUEUED = "a job is always started again after a preemption; for its time limit set slurm.max_requeues"
_TAKEN = {
    "requeue": _REQUEUED,
    "no-requeue": _REQUEUED,
    "output": "the log is log.out in the job's folder",
    "error": "the log is log.err in the job's folder",
    "input": "a job asks nothing",
    "open-mode": "the log of a second attempt is appended",
    "signal": "the job is warned before its time limit",
    "hold": "every job is submitted held, and released when its folder is complete",
    "chdir": "jobs run in the project's folder",
    "wrap": "the script is written by this tool",
    "clusters": "jobs run on the cluster that SLURM_CONF names: on another one their ids mean other jobs",
    "array": "a sweep is a job array; for how many of its tasks run at once set slurm.array_limit",
    "nodes": "a job is one process on one node",
    "ntasks": "a job is one process on one node",
    "ntasks-per-node": "a job is one process on one node",
    "parsable": "the answer of sbatch is read",
    "quiet": "the answer of sbatch is read",
    "verbose": "the answer of sbatch is read",
    "test-only": "use submit's --dry-run",
    "wait": "use submit's --wait",
    "help": "nothing would be submitted",
    "usage": "nothing would be submitted",
    "version": "nothing would be submitted",
}
# The other long options of sbatch, of SLURM 20.11 to 24.11, those that its help does not tell of included.
_OTHER = (
    "acctg-freq bb bbf begin cluster-constraint container-id contiguous core-spec cores-per-socket cpu-freq "
    "cpus-per-gpu deadline delay-boot distribution exclusive export export-file extra extra-node-info get-user-env "
    "gid gpu-bind gpu-freq gres-flags hint ignore-pbs kill-on-invalid-dep licenses mcs-label mem-bind mincpus "
    "network nice no-kill nodefile ntasks-per-core ntasks-per-gpu ntasks-per-socket oom-kill-step overcommit "
    "oversubscribe power prefer priority profile propagate reboot reservation resv-ports segment "
    "sockets-per-node spread-job stepmgr switches thread-spec threads-per-core time-min tmp tres-bind tres-per-task "
    "uid use-min-nodes wait-all-nodes wckey"
)
KNOWN_OPTIONS = frozenset(_OTHER.split()) | frozenset(_OWN_KEYS) | frozenset(_ONE_OF_TWO) | frozenset(_TAKEN)
# Options whose value is yes or no in words of their own, for true and false: YAML reads `yes` and `no` as those.
_YES_NO = {"kill-on-invalid-dep": ("yes", "no"), "wait-all-nodes": ("1", "0"), "oom-kill-step": ("1", "0")}
# Of the options above those that need no value. True is for these: the option alone.
_SWITCHES = (
    "contiguous", "exclusive", "get-user-env", "ignore-pbs", "nice", "no-kill", "overcommit", "oversubscribe",
    "propagate", "reboot", "resv-ports", "spread-job", "stepmgr", "use-min-nodes",
)  # fmt: skip


def extra_options(config: SlurmConfig) -> dict[str, str | int | bool]:
    """The options of `slurm.extra` by the names that sbatch knows, without those that are false."""
    found: dict[str, str | int | bool] = {}
    for option, value in config.extra.items():
        name = option.replace("_", "-")
        if isinstance(value, bool) and name in _YES_NO:
            found[name] = _YES_NO[name][0 if value else 1]
        elif value is not False:
            found[name] = value
    return found


def is_abbreviated(name: str) -> bool:
    """Whether sbatch would take this for one of the options known here, written in full."""
    return any(known.startswith(name) for known in KNOWN_OPTIONS if known != name)


def _problem(key: str, message: str, hint: str) -> Problem:
    return Problem(file="spec", line=None, key=key, message=message, hint=hint)


def option_problems(config: SlurmConfig, known: Collection[str] = KNOWN_OPTIONS) -> list[Problem]:
    """What is wrong between the keys of the `slurm` section and its `extra` options, all of it.

    An option that is not among `known` is refused: sbatch would, too, but only after everything else was done.
    """
    return list(_problems(config, known))


def _problems(config: SlurmConfig, known: Collection[str]) -> Iterator[Problem]:
    given: dict[str, str] = {}
    for option, value in config.extra.items():
        name, key = option.replace("_", "-"), f"slurm.extra.{option}"
        other = _ONE_OF_TWO.get(name)
        if not name.replace("-", "").isalnum() or not name.isascii() or name.startswith("-"):
            yield _problem(key, f"{option!r} is no sbatch option", "write its long name without the dashes")
        elif "\n" in str(value) or "\r" in str(value):
            message = "a value of several lines can't stand in an sbatch script"
            yield _problem(key, message, "write it on one line")
        elif name in given:
            yield _problem(key, f"--{name} is given twice, also as {given[name]!r}", "leave one of them out")
        elif name in _OWN_KEYS:
            yield _problem(key, f"--{name} has a key of its own", f"set {_OWN_KEYS[name]} instead")
        elif name in _TAKEN:
            yield _problem(key, f"--{name} is set by the submission itself", _TAKEN[name])
        elif name not in known:
            yield _problem(key, f"sbatch has no option --{name}", _nearest(name, known))
        elif value is True and name in KNOWN_OPTIONS and name not in (*_SWITCHES, *_YES_NO):
            message = f"--{name} needs a value, found true, which is also how YAML reads yes and on"
            yield _problem(key, message, "write the value that `sbatch --help` tells of, a word in quotes")
        elif other is not None and getattr(config, other) not in (None, ()):
            message = f"--{name} and slurm.{other} ask for the same twice"
            yield _problem(key, message, f"leave one of them out, or set slurm.{other}={_unset(other)}")
        elif name in MEMORY_INSTEAD and (clash := next((o for o in given if o in MEMORY_INSTEAD), None)):
            yield _problem(key, f"--{name} and --{clash} exclude each other", "leave one of them out")
        given[name] = option
    if config.nodelist and config.nodelist == config.exclude:
        yield _problem("slurm.exclude", "the same nodes as slurm.nodelist: no node is left", "change one of them")


def _unset(key: str) -> str:
    return {"after": "[]", "mail": "off", "container": "off"}.get(key, "null")


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    if not near:
        return "see `sbatch --help` for the long options"
    if key := _OWN_KEYS.get(near[0]):
        return f"set {key} instead"
    return f"did you mean {near[0]!r}?"
