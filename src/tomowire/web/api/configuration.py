"""The configuration: look at it without its secrets, check another one, apply it, read the file again."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Literal

from pydantic import Field

from tomowire.errors import ConfigurationInvalid, UsageError
from tomowire.server.changes import Reconfigured, compare
from tomowire.server.config import settings_from
from tomowire.server.config.shown import shown_settings
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


class Configuration(Model):
    """A configuration, in sections as its file has them."""

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
    changed: list[str] = Field(description="The keys that would change at once.")
    needs_restart: list[str] = Field(description="The keys that would change with the next start.")


class Applied(Model):
    """What became of a configuration."""

    changed: list[str] = Field(description="The keys that are different from now on.", examples=[["nodes"]])
    needs_restart: list[str] = Field(description="The keys that are not, before the next start.")
    warnings: list[str] = Field(description="What needs a look: that a lower quota will take studies, for instance.")


@router.get("/configuration", **operation("getConfiguration", Role.ADMINISTRATOR))
async def get_configuration(here: Here) -> Configuration:
    """The configuration that is in force. Passwords are `***`."""
    return Configuration(configuration=await asyncio.to_thread(shown_settings, here.archive.settings))


@router.post("/configuration/check", **operation("checkConfiguration", Role.ADMINISTRATOR, body=True))
async def check_configuration(here: Here, request: Configuration) -> Checked:
    """Whether a configuration could be used, and what would change. Nothing does."""
    try:
        settings = await asyncio.to_thread(settings_from, request.configuration, _SOURCE)
    except ConfigurationInvalid as error:
        mistakes = [Mistake.model_validate(each.as_json()) for each in error.problems]
        return Checked(is_valid=False, problems=mistakes, changed=[], needs_restart=[])
    taken, account = compare(here.archive.settings, settings)
    foreseen = await foresee_quota(here.archive, taken)
    return Checked(
        is_valid=True,
        problems=[] if foreseen is None else [_warning("quota", str(foreseen))],
        changed=list(account.changed),
        needs_restart=list(account.needs_restart),
    )


@router.put("/configuration", **operation("applyConfiguration", Role.ADMINISTRATOR, 409, body=True))
async def apply_configuration(here: Here, request: Configuration) -> Applied:
    """Have another configuration in force, as far as that can be done without a restart. No association is dropped.

    It holds until the archive ends or its file is read again: the file stays as it is.
    """
    try:
        settings: Settings = await asyncio.to_thread(settings_from, request.configuration, _SOURCE)
        account = await here.archive.reconfigure(settings, by=here.party)
    except ConfigurationInvalid as error:
        raise _refused(error) from None
    except UsageError as error:
        raise Problem(409, str(error)) from None
    return _applied(here, account)


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
    return _applied(here, account)


def _applied(here: Here, account: Reconfigured) -> Applied:
    logger.warning("configuration, by %s: %s", here.principal.name, account)
    return Applied(
        changed=list(account.changed), needs_restart=list(account.needs_restart), warnings=list(account.warnings)
    )


def _warning(key: str, text: str) -> Mistake:
    return Mistake(severity="warning", source=_SOURCE, line=None, column=None, key=key, text=text, nearest=None)


def _refused(error: ConfigurationInvalid) -> Problem:
    places = [
        {"in": each.origin.source if each.origin is not None else _SOURCE, "name": each.key or "", "detail": str(each)}
        for each in error.problems
    ]
    return Problem(422, "the configuration has mistakes, and the one of before stays in force", errors=places)
