"""The settings of the embedded PostgreSQL."""

from pathlib import Path

from node.machine_memory import share_mb

POSTGRES_PORT = 5432
# 12 for each of 18 workers and one that replaces another, the command line, and backups. An unused
# place costs some 20 kB of shared memory.
_CONNECTIONS_MAX = 240


def postgres_settings(sockets_dir: Path, memory: int, free: int) -> dict[str, str]:
    """What a small machine needs; `memory` and `free` (disk) in MB."""
    return {
        "listen_addresses": "",
        "port": str(POSTGRES_PORT),
        "unix_socket_directories": str(sockets_dir),
        "unix_socket_permissions": "0700",
        "max_connections": str(_CONNECTIONS_MAX),
        "shared_buffers": f"{share_mb(memory, 8, 32, 256)}MB",
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
