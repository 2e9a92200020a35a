"""The stores behind dicomferry: a PostgreSQL cluster and a Redis (or Valkey) server of the tests' own."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.process import LOOPBACK, Server, require


class PostgresCluster(Server):
    """A cluster in a temporary folder, with trust on loopback. It gives databases, each used by one test.

    As root it runs as the user postgres (PostgreSQL refuses root). `fsync` is off unless asked for.
    """

    binary = "postgres"

    def __init__(self, *, fsync: bool = False, port: int | None = None) -> None:
        super().__init__(port)
        self.data = self.folder / "data"
        self.fsync = fsync
        self._made = 0
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            setpriv = require("setpriv")
            self._as_user = [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def prepare(self) -> None:
        if self.data.exists():
            return
        done = self._tool("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        if done.returncode:
            shutil.rmtree(self.data, ignore_errors=True)
            raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def command(self) -> list[str]:
        durable = "on" if self.fsync else "off"
        return [
            *self._as_user, self.program, "-D", str(self.data), "-p", str(self.port), "-h", LOOPBACK,
            "-k", str(self.folder), "-c", f"fsync={durable}", "-c", f"full_page_writes={durable}",
            "-c", f"synchronous_commit={durable}", "-c", "max_connections=200",
        ]  # fmt: skip

    def ready(self) -> bool:
        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def dsn(self, database: str) -> str:
        return f"host={LOOPBACK} port={self.port} user=postgres dbname={database}"

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@{LOOPBACK}:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """One statement in autocommit; the rows that it gives, if any."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self) -> str:
        """A fresh, empty database; its SQLAlchemy URL."""
        self._made += 1
        name = f"test_{os.getpid()}_{self._made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Ends what is still connected, too."""
        self.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def stop(self, timeout: float = 10.0) -> None:
        """PostgreSQL's fast shutdown: open sessions are ended."""
        if self.running:
            self._tool("pg_ctl", "-m", "fast", "-w", "-t", str(int(timeout)), "stop")
        self.kill()

    def _tool(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One of the server's own tools, on this cluster, as the user that the server runs as."""
        return subprocess.run(
            [*self._as_user, str(Path(self.program).with_name(name)), "-D", str(self.data), *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )


class RedisServer(Server):
    """redis-server (or valkey-server), with an append-only file so that a restart keeps its data."""

    binary = "redis-server"

    def __init__(self, password: str | None = None, *, port: int | None = None, aof: bool = True) -> None:
        super().__init__(port)
        self.password = password
        self.aof = aof

    def command(self) -> list[str]:
        return [
            self.program, "--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.folder),
            "--save", "", "--appendonly", "yes" if self.aof else "no", "--daemonize", "no",
            *(["--requirepass", self.password] if self.password else []),
        ]  # fmt: skip

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}{LOOPBACK}:{self.port}/0"

    def client(self) -> redis.Redis:
        """One that says at once when the server is away: the library's own default is to try for seconds."""
        once = Retry(NoBackoff(), 0)
        return redis.Redis(LOOPBACK, self.port, password=self.password, socket_timeout=5, retry=once)

    def ready(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # loading its append-only file is one of them
            return False

    def flushall(self) -> None:
        """Loses everything, as an operator's mistake would."""
        with self.client() as client:
            client.flushall()
