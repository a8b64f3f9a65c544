"""A MONAI Label server for the tests: started, asked over REST, stopped."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import requests
from data import ROOT


def interpreter():
    """Python that has MONAI Label: this one, SPCDD_LABEL_PYTHON, or that of .venv_label, which ``make label`` makes."""
    if find_spec("monailabel"):
        return sys.executable
    path = Path(os.environ.get("SPCDD_LABEL_PYTHON", ROOT / ".venv_label" / "bin" / "python"))
    return str(path) if path.exists() else None


class Server:
    """What the tests ask."""

    def __init__(self, address):
        self.address = address

    def get(self, path):
        return requests.get(f"{self.address}/{path}", timeout=60).json()

    def session(self, file):
        """Upload a volume; returns the id of the session."""
        with open(file, "rb") as content:
            answer = requests.put(f"{self.address}/session/", files={"files": (file.name, content)}, timeout=60)
        answer.raise_for_status()
        return answer.json()["session_id"]

    def infer(self, model, session, **params):
        query = {"session_id": session, "output": "image"}
        return requests.post(
            f"{self.address}/infer/{model}", params=query, data={"params": json.dumps(params)}, timeout=300
        )

    def train(self, model, run_sync=False, **params):
        """Start a training in a process of its own, or within the request."""
        query = {"run_sync": str(run_sync).lower()}
        return requests.post(f"{self.address}/train/{model}", params=query, json=params, timeout=300)

    def wait_for_training(self, limit=300):
        """Status of the last training when it has ended."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            status = self.get("train/")
            if status["status"] in ("DONE", "ERROR"):
                return status
            time.sleep(0.5)
        raise AssertionError("the training did not end")


@contextlib.contextmanager
def running(app, studies, log, *conf):
    """Server of ``app`` over the images in ``studies``; what it prints goes to ``log``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [interpreter(), "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--conf",
        "zoo_source",
        "local",
        "--conf",
        "sam2",
        "false",
        *conf,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    with open(log, "w") as output:
        process = subprocess.Popen(
            [str(word) for word in command], cwd=log.parent, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            server, deadline = Server(f"http://127.0.0.1:{port}"), time.monotonic() + 180
            while True:
                with contextlib.suppress(requests.ConnectionError):
                    server.get("info/")
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"the server did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.3)
            yield server
        finally:
            process.terminate()
            process.wait(30)
