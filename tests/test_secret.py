from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdmpc_lab.secret import LEFT_OUT, holds_private_key, is_secret_name, secret_values, without_secrets

# In two halves each, so that this file holds nothing that looks like one.
KEY = "-----BEGIN RSA PRIV" + "ATE KEY-----\n" + "+MIIEpAIBAAKCAQEA7\n" * 20 + "-----END RSA PRIV" + "ATE KEY-----"
SECRETS = {
    "gh" + "p_" + "a1B2" * 9: "token of a forge",
    "hf" + "_" + "aBcD" * 8: "token of a hub",
    "AKIA" + "ABCDEFGH12345678": "access key",
    "eyJ" + "hbGciOiJIUzI.eyJ" + "zdWIiOiIxMjM.sgnturesgnture": "signed token",
    KEY: "private key",
}


@pytest.mark.parametrize("secret", SECRETS, ids=SECRETS.values())
def test_known_forms_are_left_out_wherever_they_stand(secret: str) -> None:
    text, count = without_secrets(f"+run = start('{secret}')  # for now\n")
    assert secret not in text
    assert (text, count) == (f"+run = start('{LEFT_OUT}')  # for now\n", 1)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("+    password = 'correct horse'", "+    password = 'correct horse'"),  # a sentence is none
        ("+    password = 'correcthorse'", f"+    password = '{LEFT_OUT}'"),
        ('+  "api_key": "0123456789"', f'+  "api_key": "{LEFT_OUT}"'),
        ("+WANDB_API_KEY=0123456789abcdef", f"+WANDB_API_KEY={LEFT_OUT}"),
        ("+export DB_PASSWORD=hunter2hunter2", f"+export DB_PASSWORD={LEFT_OUT}"),
        ("-uri = 'postgres://lab:hunter2@db/mlflow'", f"-uri = 'postgres://lab:{LEFT_OUT}@db/mlflow'"),
        ("+tokenizer = 'bert-base-cased'", "+tokenizer = 'bert-base-cased'"),
        ("+token = os.environ['TOKEN']", "+token = os.environ['TOKEN']"),
        ("+commit 1394588aa71e59e1e29a1f1e68b5b8a3f6ee8a16", "+commit 1394588aa71e59e1e29a1f1e68b5b8a3f6ee8a16"),
        ("+horizon: 9", "+horizon: 9"),
    ],
)
def test_what_a_line_of_code_shows(line: str, shown: str) -> None:
    assert without_secrets(line)[0] == shown


def test_values_of_the_environment_are_left_out_too() -> None:
    environ = {"MY_TOKEN": "open sesame!", "TOKEN_FILE": "/home/me/token", "PATH": "/usr/bin", "SECRET": "short"}
    values = secret_values(environ)
    assert values == ["open sesame!"]
    assert without_secrets("say('open sesame!') twice: open sesame!", values) == (
        f"say('{LEFT_OUT}') twice: {LEFT_OUT}",
        2,
    )


@given(st.text(), st.lists(st.text(min_size=8), max_size=3))
def test_any_text_is_taken(text: str, values: list[str]) -> None:
    told, count = without_secrets(text, values)
    assert (told == text) == (count == 0) or LEFT_OUT in text


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text", ["token=" * 200_000, "://" * 300_000, "-----BEGIN PRIVATE KEY-----" * 20_000, "\"'" * 500_000]
)
def test_large_texts_take_no_time(text: str) -> None:
    without_secrets(text)


def test_a_private_key_under_another_name() -> None:
    assert holds_private_key(KEY.encode())
    assert holds_private_key(b"\n" + KEY.encode())
    assert not holds_private_key(b"print('-----BEGIN PRIVATE KEY-----')")
    assert not holds_private_key(b"")


@pytest.mark.parametrize(
    "name", ["a/.env", "a/.ENV.local", "x.pem", "x.key", "id_rsa", "id_ed25519.pub", "Credentials", ".git-credentials"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert not is_secret_name("src/environment.py")
    assert not is_secret_name("keys.py")
