"""What is told of the git repository that a project is in."""

from __future__ import annotations

from pathlib import Path

import pytest
from repositories import commit_all

from tdmpc_lab.jobs import git as git_module
from tdmpc_lab.jobs.git import code_diff, git_state


def test_git_state_of_a_clean_and_a_changed_tree(repository: Path) -> None:
    assert git_state(repository) == (None, False)  # no commit yet
    (repository / "code.py").write_text("1")
    assert git_state(repository) == (None, True)
    head = commit_all(repository)
    assert git_state(repository) == (head, False)
    (repository / "new.py").write_text("2")
    assert git_state(repository) == (head, True)


def test_what_the_tool_writes_does_not_make_the_tree_dirty(repository: Path) -> None:
    (repository / "notes").mkdir()
    (repository / "notes" / "1.md").write_text("a")
    commit_all(repository)
    (repository / "notes" / "1.md").write_text("b")
    for folder in ("jobs", "mlruns", "notes"):
        (repository / folder).mkdir(exist_ok=True)
        (repository / folder / "new").write_text("c")
    assert git_state(repository)[1] is False


def test_changes_outside_the_project_but_in_its_repository_count(repository: Path) -> None:
    project = repository / "project"
    project.mkdir()
    (repository / "library.py").write_text("1")
    commit_all(repository)
    assert git_state(project)[1] is False
    (repository / "library.py").write_text("2")
    assert git_state(project)[1] is True


def test_git_variables_of_a_hook_are_not_followed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "code.py").write_text("1")
    head = commit_all(repository)
    monkeypatch.setenv("GIT_DIR", str(repository / "elsewhere"))
    monkeypatch.setenv("GIT_WORK_TREE", "/")
    assert git_state(repository) == (head, False)


def test_no_repository_no_git_no_folder_and_no_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / ".git").write_text("gitdir: nowhere\n")  # keeps git from looking further up
    assert git_state(plain) == (None, None)
    assert git_state(tmp_path / "missing") == (None, None)

    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(plain))
        assert git_state(plain) == (None, None)

    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 20\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:/usr/bin:/bin")
    monkeypatch.setattr(git_module, "_TIMEOUT_S", 0.2)
    assert git_state(plain) == (None, None)


def test_the_difference_names_new_files_and_leaves_out_secrets_and_own_folders(repository: Path) -> None:
    (repository / "code.py").write_text("old\n")
    (repository / "jobs").mkdir()
    (repository / "jobs" / "README.md").write_text("old\n")
    (repository / "deep").mkdir()
    (repository / "deep" / "key.PEM").write_text("old\n")
    assert code_diff(repository) is None  # no commit yet
    commit_all(repository)
    assert code_diff(repository, ["*.pem"]) is None
    (repository / "code.py").write_text("new\n")
    (repository / "jobs" / "README.md").write_text("new\n")
    (repository / "deep" / "key.PEM").write_text("password\n")
    (repository / "module.py").write_text("1")
    (repository / "other.pem").write_text("1")
    text = code_diff(repository, ["*.pem"])
    assert text is not None
    assert text.startswith("# new, not tracked by git: module.py\ndiff --git a/code.py b/code.py\n")
    assert text.endswith("-old\n+new\n")
    assert text.count("diff --git") == 1
    assert "password" not in text
    assert "other.pem" not in text


def test_an_endless_difference_is_cut(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "code.py").write_text("old\n")
    commit_all(repository)
    (repository / "code.py").write_text("new\n" * 100)
    monkeypatch.setattr(git_module, "_MOST_DIFF", 200)
    text = code_diff(repository)
    assert text is not None
    assert len(text) < 300
    assert "cut off here" in text
