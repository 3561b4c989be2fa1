from devserver.embedded_postgres import PostgresServer, start_postgres
from devserver.embedded_redis import RedisServer, find_redis_binary, start_redis
from devserver.embedded_server import EmbeddedServerError, PortTaken
from devserver.postgres_binaries import find_postgres_binaries

__all__ = [
    "EmbeddedServerError",
    "PortTaken",
    "PostgresServer",
    "RedisServer",
    "find_postgres_binaries",
    "find_redis_binary",
    "start_postgres",
    "start_redis",
]
