"""What looks like a password, a key or a token, in names of files and in text: it stays out of records and copies.

A guess by looks: it can miss one, and take a harmless text for one. So what is left out is always said.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

NAMES = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx", "id_rsa*",
    "id_dsa*", "id_ecdsa*", "id_ed25519*", "credentials*", "secrets.*", ".netrc", ".pypirc", ".npmrc", ".htpasswd",
    ".git-credentials", "kaggle.json",
)  # fmt: skip
"""Names of files that are never copied, whatever their case."""
LEFT_OUT = "[left out: looks like a secret]"

_WORDS = r"(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"
_NAMED = re.compile(_WORDS, re.IGNORECASE)
_SHORTEST = 8  # characters of a value of the environment that is looked for in texts
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]{40,20000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
)
_TOKENS = re.compile(
    r"""\b(?:
        gh[pousr]_[A-Za-z0-9]{30,} | github_pat_\w{22,} | glpat-[\w-]{20,} | hf_[A-Za-z0-9]{30,} | sk-[\w-]{20,}
      | xox[abprs]-[\w-]{10,} | AKIA[0-9A-Z]{16} | AIza[\w-]{35} | eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}
    )""",
    re.VERBOSE,
)
# name = "value" and name: "value"; NAME=value as in a shell; user:password@host
_QUOTED = re.compile(rf"(?i)({_WORDS}(?![a-z])[\w-]{{0,40}}[\"']?\s{{0,8}}[:=]\s{{0,8}}[\"'])([^\"'\s]{{6,}})(?=[\"'])")
_SHELL = re.compile(r"((?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_?KEY)[A-Z0-9_]{0,40}=)([^\s\"'$(){}\[\],]{6,})")
_IN_URL = re.compile(r"(://[^\s:/@]{1,100}:)([^\s:/@]{3,200})(?=@)")


def is_secret_name(path: str) -> bool:
    """Whether a file of this name is likely to hold a password or a key."""
    name = PurePosixPath(path).name.lower()
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in NAMES)


def holds_private_key(data: bytes) -> bool:
    """Whether a file is a private key, whatever its name; only its beginning is looked at."""
    begin = data[:200].lstrip()
    return begin.startswith(b"-----BEGIN ") and b"PRIVATE KEY-----" in begin.partition(b"\n")[0]


def secret_values(environ: Mapping[str, str] | None = None) -> list[str]:
    """The values of the environment (default: this process's) whose names say that they are secrets, longest first."""
    found = {
        value.strip()
        for name, value in (os.environ if environ is None else environ).items()
        if _NAMED.search(name) and len(value.strip()) >= _SHORTEST and os.sep not in value
    }
    return sorted(found, key=lambda value: (-len(value), value))


def without_secrets(text: str, values: Iterable[str] = ()) -> tuple[str, int]:
    """The text with what looks like a secret replaced, and how often that was; `values` are replaced anywhere."""
    count = 0
    for value in values:
        count += text.count(value)
        text = text.replace(value, LEFT_OUT)
    for pattern in (_PRIVATE_KEY, _TOKENS):
        text, found = pattern.subn(LEFT_OUT, text)
        count += found
    for pattern in (_QUOTED, _SHELL, _IN_URL):
        text, found = pattern.subn(rf"\1{LEFT_OUT}", text)
        count += found
    return text, count
