"""A fixed load of wrk's on a worker of gunicorn's: requests per second, as JSON."""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("EXPECTED_GREENLET", "")
sys.path.insert(0, str(Path(__file__).parent.parent))

from support import free_port, result, running, wait_for, wrk

CONNECTIONS = 50


def main() -> None:
    """Measure, and print."""
    results = {}
    log = Path(tempfile.mkdtemp()) / "log"
    bind = f"127.0.0.1:{free_port()}"
    arguments = ["-m", "gunicorn", "--worker-class", sys.argv[1], "--bind", bind]
    arguments += ["--no-control-socket", "--graceful-timeout", "2", "wsgi_application:application"]
    with running(*arguments, log=log) as process:
        wait_for(f"http://{bind}", process, log)
        for path in ("/", "/stream"):
            result(wrk(f"http://{bind}{path}", seconds=1, connections=CONNECTIONS))
            load = result(wrk(f"http://{bind}{path}", seconds=5, connections=CONNECTIONS))
            assert not load.bad_statuses, load.output
            results[f"GET {path}"] = load.per_second
    print(json.dumps(results))


main()
