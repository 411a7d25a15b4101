"""A PostgreSQL server in a temporary folder, for the scripts and tests that need a real one.

It listens on a Unix socket in that folder alone, which only its user and root can enter.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWNER = "unweave"


def find_programs() -> Path:
    """The folder of the server's programs: that of `initdb` on the PATH, or that of `pg_config`."""
    path = shutil.which("initdb")
    if path is None and shutil.which("pg_config") is not None:
        process = subprocess.run(["pg_config", "--bindir"], check=True, capture_output=True, text=True)
        path = shutil.which("initdb", path=process.stdout.strip())
    if path is None:
        raise SystemExit("no initdb on the PATH or in the folder of `pg_config --bindir`: install PostgreSQL")
    return Path(path).parent


@contextmanager
def run_server(user: str | None = None) -> Iterator[str]:
    """Starts a server for the body, stops it and removes its folder; gives its URL.

    Args:
        user: The user that the server runs as; you if None. Only root may name another, and must: PostgreSQL
            refuses to run as root.
    """
    if user is None and os.geteuid() == 0:
        raise SystemExit("PostgreSQL refuses to run as root: give --user with an unprivileged user")
    programs = find_programs()
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)

        def run(program: str, *words: str) -> None:
            """Runs one of the programs on the folder `data`, as that user."""
            with (folder / "output").open("w") as output:  # a pipe would stay open in the server
                process = subprocess.run(
                    [programs / program, "-D", folder / "data", *words],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, user=user,
                    check=False,
                )  # fmt: skip
            if process.returncode:
                raise SystemExit(f"{program} failed:\n{(folder / 'output').read_text()}")

        run("initdb", "-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        run("pg_ctl", "-w", "start", "-o", f"-k {folder} -c listen_addresses='' -c fsync=off")
        try:
            yield f"postgresql+psycopg://{OWNER}@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
