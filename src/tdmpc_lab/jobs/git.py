"""What git says about the code of a project. No job fails for want of git."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tdmpc_lab.outputs import is_output
from tdmpc_lab.sharing import user_name

_TIMEOUT_S = 10.0
_OWN = (":(exclude)jobs", ":(exclude)notes", ":(exclude)mlruns")  # what the tool itself writes is no change of code
_KEPT = ("GIT_CEILING_DIRECTORIES",)
_MOST_DIFF = 1_000_000  # characters


class GitError(Exception):
    """Git is missing, or says no; the text is one line for a user."""


class NoRepositoryError(GitError):
    """The folder is in no git repository."""


def git(root: Path, *arguments: str) -> str:
    """What git prints. Hooks export GIT_DIR and the like: those are not passed on. Raises GitError."""
    try:
        done = _run(root, arguments)
    except subprocess.TimeoutExpired:
        raise GitError(f"git gave no answer in {_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        missing = isinstance(error, FileNotFoundError) and error.filename == "git"
        raise GitError("git is not on this machine" if missing else f"git can't be run: {error}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise _refusal(root) or GitError(said[0] if said else f"git {arguments[0]} failed")
    return os.fsdecode(done.stdout)


def _refusal(root: Path) -> GitError | None:
    """Why git says no to anything about `root`; None where it does not. No word of git's is looked for."""
    top = ["rev-parse", "--show-toplevel"]
    if _run(root, top).returncode == 0:
        return None
    trusting = _run(root, ["-c", "safe.directory=*", *top])
    if trusting.returncode == 0:
        folder = os.fsdecode(trusting.stdout).rstrip("\n")
        return GitError(
            f"git does not trust {folder}, which belongs to {user_name(Path(folder).stat().st_uid)}; if you do: "
            f"git config --global --add safe.directory {shlex.quote(folder)}"
        )
    if any((above / ".git").exists() for above in (root, *root.parents)):
        return None  # there is one, and something else is wrong: git's own words tell
    return NoRepositoryError(f"{root} is in no git repository")


def _run(root: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if name in _KEPT or not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return subprocess.run(
        ["git", "-c", "core.fsmonitor=false", *arguments],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """Commit of the code under `root`, and whether the tree differs from it.

    What the tool itself writes there (jobs/, notes/, mlruns/, and pictures and pages wherever they are) does not
    count as a difference. The commit is
    None where there is none yet; (None, None) outside a repository and without git. Never raises: a job
    must not fail for want of it.
    """
    try:
        changes = git(root, "status", "--porcelain", "-z", "--untracked-files=all", "--", ":/", *_OWN)
        top = _top(root)
    except GitError:
        return None, None
    try:
        commit = git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    except GitError:
        commit = ""
    # Two letters, a space and the name; after that of a renamed file stands its old one, which is there no more.
    names = [entry[3:] if entry[2:3] == " " else entry for entry in changes.split("\0") if entry]
    return commit or None, not all(is_output(top / name) for name in names)


def _top(root: Path) -> Path:
    return Path(git(root, "rev-parse", "--show-toplevel").rstrip("\n"))


def code_diff(root: Path, without: Sequence[str] = ()) -> str | None:
    """How the code differs from its commit: the names of new files as comments, then `git diff HEAD`.

    None where it does not differ, where there is no commit, and where git can't be asked. `without` are names
    (`*.pem`) that are left out wherever they lie.
    """
    left_out = [*_OWN, *(f":(exclude,top,glob,icase)**/{name}" for name in without)]
    try:
        top = _top(root)
        different = git(root, "diff", "--name-only", "-z", "HEAD", "--", ":/", *left_out).split("\0")
        left_out += [f":(exclude,top,literal){name}" for name in different if is_output(top / name)]
        changed = git(root, "diff", "--no-ext-diff", "--no-color", "HEAD", "--", ":/", *left_out)
        new = git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", ":/", *left_out)
    except GitError:
        return None
    names = "".join(
        f"# new, not tracked by git: {name}\n"
        for name in sorted(new.split("\0"))
        if name and not is_output(root / name)
    )
    # Read as UTF-8 whatever the locale is: what is no text comes back as the same bytes when it is written.
    text = os.fsencode(names + changed).decode(errors="surrogateescape")
    if len(text) > _MOST_DIFF:
        text = f"{text[:_MOST_DIFF]}\n# cut off here: the whole difference has {len(text):,} characters\n"
    return text or None
