"""SQLAlchemy is imported by whichever thread needs it first, and another one may need it at the same moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.subprocesses import python_environment

_TWO_AT_ONCE = """
import sys, threading
from pathlib import Path
from tomowire.server.index.backend import backend_for
from tomowire.server.records import Records

backend = backend_for(None, Path(sys.argv[1]))
backend.open_writer().close()
records = Records(backend.engine)
assert "sqlalchemy" not in sys.modules

def second():
    outcomes.append(records.read_now(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()))

def halfway(event, arguments):
    # The first thread has begun with the package: it goes on when the second waits for a module.
    if event == "import" and arguments[0] == "sqlalchemy.util" and not threads:
        threads.append(threading.Thread(target=second))
        threads[0].start()
        while not waits(threads[0]):
            pass

def waits(thread):
    frame = sys._current_frames().get(thread.ident)
    return not thread.is_alive() or (frame is not None and frame.f_code.co_name == "acquire")

threads, outcomes = [], []
sys.addaudithook(halfway)
outcomes.append(records.write_now(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()))
assert threads, "it is imported by then"
threads[0].join()
assert outcomes == [1, 1], outcomes
records.close()
"""


def test_two_threads_that_need_the_index_first_both_get_it(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _TWO_AT_ONCE, str(tmp_path)],
        check=False,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
