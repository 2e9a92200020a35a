"""What of a URL may be shown: a password, and every other secret in it, may not."""

from __future__ import annotations

import re

_PLAIN_PARAMETERS = frozenset(
    {"host", "hostaddr", "port", "db", "dbname", "user", "service", "application_name", "client_encoding"}
    | {"connect_timeout", "target_session_attrs", "load_balance_hosts", "tcp_user_timeout", "virtual_host"}
    | {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "gssencmode", "channel_binding"}
    | {"sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile", "mode", "cache", "uri"}
    | {"ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "socket_timeout", "socket_connect_timeout"}
)
"""What may be shown of a URL's parameters: names, numbers, paths, of PostgreSQL, Redis and SQLite."""


def hide_password(url: str) -> str:
    """The URL without its secrets, each as `***`; anything that is no URL unchanged.

    The password in the address; every parameter but those known to hold none, for no list of secret ones is whole
    (`sslpassword`, `token`, `sig`); and the path of a webhook, which for many services is the secret itself.
    """
    # Up to the last @: whoever forgets to quote the @ or / in a password must not see it printed.
    hidden = re.sub(r"(?<=://)([^:@/]*):.*@", r"\1:***@", url)
    hidden = re.sub(r"(?i)^(https?://[^/?#]*)[/?#].+", r"\1/***", hidden)
    head, mark, query = hidden.partition("?") if "://" in hidden else (hidden, "", "")
    return head + mark + "&".join(map(_hide_value, re.split("[&;]", query)))


def _hide_value(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not parameter or (equals and not value) or name.lower() in _PLAIN_PARAMETERS:
        return parameter
    return f"{name}=***" if equals else "***"
