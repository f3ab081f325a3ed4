"""`python -m support.job_claims URL-OR-EMPTY DATA-DIR`: a process that claims up to 20 jobs, one by one, and prints their ids."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from uuid import uuid4

from tomowire.server.index.backend import backend_for
from tomowire.server.jobs import claims
from tomowire.server.records import Records

_MOST = 20


def main(url: str, data_dir: str) -> None:
    with closing(Records(backend_for(url or None, Path(data_dir)).engine)) as records:
        records.read_now(lambda connection: None)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        for _ in range(_MOST):
            claim = records.write_now(lambda connection: claims.claim(connection, str(uuid4()), lease=60))
            if claim is None:
                break
            sys.stdout.write(f"{claim.job.job_id}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
