"""The settings of the embedded PostgreSQL."""

from pathlib import Path

from node.machine_memory import share_mb

POSTGRES_PORT = 5432
# 12 for each of 18 workers and one that replaces another, the command line, and backups. An unused
# place costs some 20 kB of shared memory.
_CONNECTIONS_MAX = 240


# What was in memory when the server stopped, or at most 5 minutes before it died, is read again
# in the background at its next start, in the order of the disk.
WARMING_LIBRARY = "pg_prewarm"
_WARMING = {"shared_preload_libraries": WARMING_LIBRARY, "pg_prewarm.autoprewarm": "on"}


def postgres_settings(
    sockets_dir: Path, memory: int, free: int, *, warms: bool = False
) -> dict[str, str]:
    """What a small machine needs; `memory` and `free` (disk) in MB.

    `warms` says that the server has the library that fills its memory again after a restart.
    """
    return {
        **(_WARMING if warms else {}),
        "listen_addresses": "",
        "port": str(POSTGRES_PORT),
        "unix_socket_directories": str(sockets_dir),
        "unix_socket_permissions": "0700",
        "max_connections": str(_CONNECTIONS_MAX),
        # A quarter, as PostgreSQL's manual advises; memory that no page was read into stays free.
        # 10,000,000 identifiers, random, without caches: 0.67 of the rate of 10,000 with 256 MB,
        # 0.91 with 4 GB.
        "shared_buffers": f"{share_mb(memory, 4, 32, 8192)}MB",
        "effective_cache_size": f"{share_mb(memory, 2, 64, 65_536)}MB",
        "maintenance_work_mem": f"{share_mb(memory, 32, 16, 128)}MB",
        "work_mem": f"{share_mb(memory, 256, 4, 16)}MB",
        # A tenth of the free disk: WAL must never be what fills it.
        "max_wal_size": f"{share_mb(free, 10, 128, 2048)}MB",
        "checkpoint_completion_target": "0.9",
        "wal_compression": "on",
        "fsync": "on",
        "synchronous_commit": "on",
        "jit": "off",
        "huge_pages": "off",
        # Files of the database: the /dev/shm of a container has 64 MB, or is missing.
        "dynamic_shared_memory_type": "mmap",
        "random_page_cost": "1.1",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_min_messages": "warning",
        # Statements carry the data of enterprises; the log names the error alone.
        "log_min_error_statement": "panic",
        "log_line_prefix": "%m [%p] ",
    }
