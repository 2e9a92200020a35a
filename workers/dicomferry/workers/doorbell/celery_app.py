"""The Celery application: settings that make a message a mere doorbell.

Early acknowledgement, no prefetch, no ETA, no Celery retry, no results, no remote control: the lease in SQL, and not
the broker, brings lost work back.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urlsplit

from celery import Celery

NAME = "dicomferry"
_PUBLISH_SECONDS = 3.0


def create(broker_url: str | None, *, publisher: bool) -> Celery:
    """The application for one process. A publisher gives up on a dead or mute broker within seconds."""
    app = Celery(NAME, broker=broker_url, set_as_current=False)
    wait = _PUBLISH_SECONDS if publisher else 30.0
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_serializer="json",
        accept_content=["json"],
        task_create_missing_queues=True,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_max_tasks_per_child=200,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=transport_options(wait, publisher=publisher),
    )
    if broker_url and urlsplit(broker_url).scheme == "rediss":
        app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    return app


def transport_options(seconds: float, *, publisher: bool = True) -> dict[str, Any]:
    """Options of kombu's Redis transport; `seconds` bounds each wait for the broker.

    A publisher does not wait for a broker that refuses connections to come back: the sweep rings again.
    """
    return {
        **({"max_retries": 0} if publisher else {}),
        "visibility_timeout": 300,
        "socket_timeout": seconds,
        "socket_connect_timeout": min(seconds, 5.0),
        "socket_keepalive": True,
        "global_keyprefix": f"{NAME}:",
    }
