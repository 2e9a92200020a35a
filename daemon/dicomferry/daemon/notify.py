"""Telling people and programs outside: what is said, signed, and by which way it goes out."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import random
import shlex
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from dicomferry.daemon import notice
from dicomferry.models.record import outbox
from dicomferry.models.record.database import Database
from dicomferry.models.record.outbox import Channel, Notification
from dicomferry.models.rules.errors import DicomferryError
from dicomferry.models.settings import NotifySettings, Settings

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
MARGIN_SECONDS = 30.0
"""How long after its time limit a notification is still its taker's alone."""
_SECRET_PREFIX = "whsec_"


class NotTold(DicomferryError):
    """A notification did not go out; the message says why, in words that name no patient."""


def tell_next(database: Database, settings: Settings, *, first_pause: float = FIRST_PAUSE) -> bool:
    """Tell what is due next, and write down what came of it; whether there was anything. What failed is tried again
    after `first_pause` seconds, then after twice as many, and so on. Raises OutOfReach.
    """
    notify = settings.notify
    limits = {Channel.WEBHOOK: notify.webhook_timeout, Channel.COMMAND: notify.command_timeout}
    channels = {Channel.WEBHOOK} if notify.webhook_url else set()
    if notify.command:
        channels.add(Channel.COMMAND)
    outbox.pass_over(database, channels=channels, states=notify.on)
    what = outbox.take(database, seconds=max(limits.values()) + MARGIN_SECONDS)
    if what is None:
        return False
    age = time.time() - what.at.timestamp()
    try:
        document = notice.document(database, what, patient_data=notify.patient_data)
        detail = _post(notify, what, document) if what.channel is Channel.WEBHOOK else _run(settings, document)
    except NotTold as error:
        # A command that ran and failed had its chance; a webhook may be away for a while.
        again = what.channel is Channel.WEBHOOK and age < notify.give_up_after
        outbox.not_told(database, what, str(error), again_in=_pause(first_pause, what.tries) if again else None)
    else:
        outbox.told(database, what, detail)
    return True


def _pause(first: float, tries: int) -> float:
    """Seconds until the next try: doubling, within a fifth at random so that not all come at once."""
    pause: float = min(LONGEST_PAUSE, first * 2 ** min(tries - 1, 10))
    return pause * random.uniform(0.8, 1.2)


# --- webhook ----------------------------------------------------------------------------------------------------------


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        """A receiver that has moved is a matter for the settings: what is sent is not for anyone else."""


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature as Standard Webhooks has it: HMAC-SHA256 over id, time and body, in base64 behind `v1,`.

    A secret that begins with `whsec_` is the base64 of the key, any other one is the key.
    """
    key = secret.encode()
    if secret.startswith(_SECRET_PREFIX):
        with contextlib.suppress(binascii.Error, ValueError):
            key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _post(notify: NotifySettings, what: Notification, document: dict[str, Any]) -> str:
    """Send it, once; what was answered. Raises NotTold for any answer but 2xx, and for none."""
    body = json.dumps(document).encode()
    message_id, now = document["id"], int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "dicomferry",
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(notify.signing_secret, message_id, now, body),
    }
    parts = urlsplit(notify.webhook_url)
    # Not the whole URL: with many receivers its path is a password.
    where = f"webhook {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    request = urllib.request.Request(notify.webhook_url, body, headers, method="POST")
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=notify.webhook_timeout) as response:
            return f"{where}: {response.status}"
    except urllib.error.HTTPError as error:
        with error:
            raise NotTold(f"{where}: answer {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            raise NotTold(f"{where}: no answer within {notify.webhook_timeout:g} s") from None
        if isinstance(reason, ssl.SSLError):
            raise NotTold(f"{where}: TLS: {reason.reason or reason}") from None
        told = (reason.strerror or str(reason)).lower() if isinstance(reason, OSError) else str(reason)
        raise NotTold(f"{where}: {told or type(reason).__name__}") from None


# --- command ----------------------------------------------------------------------------------------------------------


def _run(settings: Settings, document: dict[str, Any]) -> str:
    """Run the command with the document on its standard input; how it ended. Raises NotTold unless with 0.

    Its output goes where ours goes: into the log.
    """
    argv = shlex.split(settings.notify.command)
    where, limit = f"command {os.path.basename(argv[0])}", settings.notify.command_timeout
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=2, env=_environment(settings, document), process_group=0
        )
    except (OSError, ValueError) as error:
        raise NotTold(f"{where}: {getattr(error, 'strerror', None) or error}") from None
    try:
        with contextlib.suppress(BrokenPipeError):
            process.communicate(json.dumps(document).encode(), timeout=limit)
    except subprocess.TimeoutExpired:
        raise NotTold(f"{where}: ended after {limit:g} s, its time limit") from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()
    if process.returncode:
        how = f"killed by signal {-process.returncode}" if process.returncode < 0 else f"exit {process.returncode}"
        raise NotTold(f"{where}: {how}")
    return f"{where}: exit 0"


def _environment(settings: Settings, document: dict[str, Any]) -> dict[str, str]:
    """Ours without the secret, and the short of it as FERRY_*: DICOMFERRY_* are the settings of any `dicomferry`."""
    environment = {key: value for key, value in os.environ.items() if key.upper() != "DICOMFERRY_NOTIFY__SECRET"}
    job, schedule = document["job"] or {}, document["schedule"] or {}
    told = {
        "FERRY_ID": document["id"],
        "FERRY_STATE": document["state"],
        "FERRY_REASON": document["reason"],
        "FERRY_JOB": job.get("id"),
        "FERRY_JOB_KIND": job.get("kind"),
        "FERRY_REMOTE": job.get("remote"),
        "FERRY_SCHEDULE": schedule.get("name"),
        "FERRY_DUE_AT": schedule.get("due_at"),
        "DICOMFERRY_HOME": settings.home,
    }
    return environment | {key: "" if value is None else str(value) for key, value in told.items()}
