"""The configuration: look at it without its secrets, check another one, apply it, read the file again."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from tomowire.errors import ConfigurationInvalid, UsageError
from tomowire.server.changes import Reconfigured, compare
from tomowire.server.config import settings_from
from tomowire.server.config.shown import reset_keys, shown_settings
from tomowire.server.reconfiguring import foresee_quota
from tomowire.server.settings import Settings
from tomowire.server.users import Role
from tomowire.web.api.models import Model
from tomowire.web.api.operation import Here, operation, topic
from tomowire.web.problems import Problem

logger: Final = logging.getLogger("tomowire.http")

router = topic("configuration")

_SOURCE: Final = "the request"
Tree = dict[str, Any]
_EXAMPLE: Final = {"dicom": {"ae_title": "ARCHIVE"}, "nodes": {"CT1": {"host": "192.0.2.7", "port": 104}}}


_Reset = Annotated[
    list[str],
    Field(
        description="Of what changes, the keys that the request left out: they go back to their defaults, or away. Empty "
        "where a file was read.",
        examples=[["nodes.CT2", "quota.bytes"]],
    ),
]


class Configuration(Model):
    """A configuration, in sections as its file has them: all of it, as what is left out has its default."""

    configuration: Tree = Field(examples=[_EXAMPLE])


class Mistake(Model):
    """What is wrong with a configuration, or worth a look."""

    severity: Literal["error", "warning"]
    source: str | None
    line: int | None
    column: int | None
    key: str | None = Field(examples=["dicom.prot"])
    text: str = Field(examples=["is not known"])
    nearest: str | None = Field(description="The key that may have been meant.", examples=["dicom.port"])


class Checked(Model):
    """What is to be said of a configuration."""

    is_valid: bool
    problems: list[Mistake]
    changed: list[str] = Field(description="The keys that would change at once; some as a section.")
    needs_restart: list[str] = Field(
        description="The keys that would stay as they are: a running archive cannot change them, and a restart reads its "
        "file, so that they have to be written there."
    )
    reset: _Reset


class Applied(Model):
    """What became of a configuration."""

    changed: list[str] = Field(
        description="The keys that are different from now on; some as a section.", examples=[["nodes"]]
    )
    needs_restart: list[str] = Field(
        description="The keys that stay as they are while the archive runs. A restart puts in force what the file says: "
        "what was put, and is not written there, never is."
    )
    reset: _Reset
    warnings: list[str] = Field(description="What needs a look: that a lower quota will take studies, for instance.")


@router.get("/configuration", **operation("getConfiguration", Role.ADMINISTRATOR))
async def get_configuration(here: Here) -> Configuration:
    """The configuration that is in force. Passwords are `***`."""
    return Configuration(configuration=await asyncio.to_thread(shown_settings, here.archive.settings))


@router.post("/configuration/check", **operation("checkConfiguration", Role.ADMINISTRATOR, body=True))
async def check_configuration(here: Here, request: Configuration) -> Checked:
    """Whether a configuration could be used, and what would change. Nothing does.

    What the request leaves out would have its default: `reset` names what that changes.
    """
    before = here.archive.settings
    try:
        settings = await asyncio.to_thread(settings_from, request.configuration, _SOURCE)
    except ConfigurationInvalid as error:
        mistakes = [Mistake.model_validate(each.as_json()) for each in error.problems]
        return Checked(is_valid=False, problems=mistakes, changed=[], needs_restart=[], reset=[])
    taken, account = compare(before, settings)
    foreseen = await foresee_quota(here.archive, taken)
    return Checked(
        is_valid=True,
        problems=[] if foreseen is None else [_warning("quota", str(foreseen))],
        changed=list(account.changed),
        needs_restart=list(account.needs_restart),
        reset=await asyncio.to_thread(reset_keys, before, taken, request.configuration),
    )


@router.put("/configuration", **operation("applyConfiguration", Role.ADMINISTRATOR, 409, body=True))
async def apply_configuration(here: Here, request: Configuration) -> Applied:
    """Have another configuration in force, as far as that can be done without a restart. No association is dropped.

    It takes the place of all of the one before: what the request leaves out goes back to its default, nodes and
    callers away. To change a part, get the configuration, change that part of it, and put all of it; `reset` in the
    answer names what was left out and is another now.

    It holds until the archive ends or its file is read again: the file stays as it is. What needs a restart is
    therefore never put in force by this: it has to be written in the file.
    """
    try:
        settings: Settings = await asyncio.to_thread(settings_from, request.configuration, _SOURCE)
        before = here.archive.settings
        account = await here.archive.reconfigure(settings, by=here.party)
    except ConfigurationInvalid as error:
        raise _refused(error) from None
    except UsageError as error:
        raise Problem(409, str(error)) from None
    taken, _ = compare(before, settings)
    reset = await asyncio.to_thread(reset_keys, before, taken, request.configuration)
    left_out = await asyncio.to_thread(reset_keys, before, settings, request.configuration)
    if reset:
        logger.warning(
            "the configuration was put without these keys, which have their defaults now: %s", ", ".join(reset)
        )
    if kept := [key for key in left_out if key not in reset]:
        logger.warning(
            "the configuration was put without these keys, which stay as they are, as they need a restart: %s",
            ", ".join(kept),
        )
    return _applied(here, account, reset)


@router.post("/configuration/reload", **operation("reloadConfiguration", Role.ADMINISTRATOR, 409))
async def reload_configuration(here: Here) -> Applied:
    """Read the file, the environment and certificates again, as SIGHUP does. With a mistake in them all stays as it is."""
    if here.gate.process.reload is None:
        raise Problem(409, "this archive was started without a file for its configuration")
    try:
        account = await here.gate.process.reload(here.party)
    except ConfigurationInvalid as error:
        raise _refused(error) from None
    except UsageError as error:
        raise Problem(409, str(error)) from None
    return _applied(here, account, [])


def _applied(here: Here, account: Reconfigured, reset: list[str]) -> Applied:
    logger.warning("configuration, by %s: %s", here.principal.name, account)
    return Applied(
        changed=list(account.changed),
        needs_restart=list(account.needs_restart),
        reset=reset,
        warnings=list(account.warnings),
    )


def _warning(key: str, text: str) -> Mistake:
    return Mistake(severity="warning", source=_SOURCE, line=None, column=None, key=key, text=text, nearest=None)


def _refused(error: ConfigurationInvalid) -> Problem:
    places = [
        {"in": each.origin.source if each.origin is not None else _SOURCE, "name": each.key or "", "detail": str(each)}
        for each in error.problems
    ]
    return Problem(422, "the configuration has mistakes, and the one of before stays in force", errors=places)
