"""The URL of an index: what libpq makes of it, and what nobody is shown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tomowire.errors import UsageError
from tomowire.server.hidden import without_password
from tomowire.server.index import index_url
from tomowire.server.index.backend import backend_for

# What libpq itself takes for the password, and what may be shown.
SECRETS = [
    ("postgresql://u:secret@h:5432/d", "secret", "postgresql://u@h:5432/d"),
    ("postgresql://u:sec#ret@h/d", "sec#ret", "postgresql://u@h/d"),
    ("postgresql://u:sec?ret@h/d", "sec?ret", "postgresql://u@h/d"),
    ("postgresql://u:sec%40ret@h/d", "sec@ret", "postgresql://u@h/d"),
    ("postgresql://h:5432/d?user=u&password=sec@ret", "sec@ret", "postgresql://h:5432/d"),
    ("postgresql://u:secret@h1,h2/d?target_session_attrs=any", "secret", "postgresql://u@h1,h2/d"),
]


@pytest.mark.parametrize(("url", "password", "shown"), SECRETS)
def test_whatever_libpq_takes_for_the_password_is_not_shown(url: str, password: str, shown: str) -> None:
    assert index_url.parameters_of(url)["password"] == password
    assert index_url.shown(url) == shown
    assert index_url.without_password(f"no such user, {password}", url) == "no such user, ***"
    assert "sec" not in without_password(url)
    assert "ret" not in without_password(url)


@pytest.mark.parametrize("url", ["postgresql://u:sec/ret@h/d", "postgresql://u:secret@ret@h/d"])
def test_a_password_that_had_to_be_escaped_is_not_shown_either(url: str) -> None:
    assert (index_url.shown(url), without_password(url)) == ("postgresql://u@h/d", "postgresql://u:***@h/d")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:secret@h/d?sslmod=require", "has an option that libpq does not know, 'sslmod'"),
        ("postgresql://u:secret@h:5432x/d", "postgresql://u@h:5432x/d has a port that is not a number from 1 to 65535"),
        ("postgresql://u:secret@h:5432,h2:70000/d", "a port that is not a number from 1 to 65535"),
        ("postgresql://u:sec%zzret@h/d", "postgresql://u@h/d cannot be understood: in a password @ is written %40"),
        ("postgresql://u:sec%@h/d", "postgresql://u@h/d cannot be understood: in a password @ is written %40"),
        ("postgresql://u:sec%00ret@h/d", "postgresql://u@h/d cannot be understood: in a password @ is written %40"),
        ("postgresql://u:sec@ret@h/d", "has more than one @: in a password @ is written %40"),
        ("postgresql://u:x@sec?sec=ret@h/d", "has more than one @: in a password @ is written %40"),
        ("postgresql://u:x@sec/ret@h/d", "has more than one @: in a password @ is written %40"),
        ("postgresql://u:sec/ret@h/d", "has a / before its @: in a password @ is written %40, / is %2F"),
        ("postgresql://u:5432/sec@ret@h/d", "has a / before its @: in a password @ is written %40, / is %2F"),
        ("postgresql://u:5432/x?sec=ret@h/d", "the index URL cannot be understood: in a password @ is written %40"),
        ("postgresql://h/d?sslmod=require", "the index URL cannot be understood: it has an option that"),
        (
            "postgresql://u:secret",
            "the index URL has a port that is not a number from 1 to 65535; if that is of a password",
        ),
    ],
)
def test_what_is_wrong_with_a_url_is_said_without_its_password(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        backend_for(url, tmp_path)
    assert said in str(error.value)
    assert "sec" not in str(error.value)


def test_without_a_driver_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r'needs psycopg.*pip install "tomowire\[postgres\]"'):
        backend_for("postgresql://u@h/d", tmp_path)
