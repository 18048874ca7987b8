"""Worker processes that start at once: forked from a process that has loaded the libraries, and nothing of Trunkline.

`warm_python` gives the path of a program that takes the place of Python's own (`sys.executable`): what is started with it
as `-m MODULE ARGUMENT…` runs in a fork of that process, with the streams, the folder and the environment of its caller.
"""

import contextlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = ("torch", "torchvision.models.detection", "torchvision.models.segmentation", "timm.optim", "safetensors.torch",
             "PIL.Image", "pydantic", "rich.progress", "jinja2", "matplotlib.figure", "scipy.ndimage", "hotcoco",
             "pycocotools.mask", "segmentation_models_pytorch", "torch.distributed")  # fmt: skip


@contextlib.contextmanager
def warm_python() -> Iterator[str]:
    """While it lasts, there is a program that starts Python's modules without loading their libraries again."""
    with tempfile.TemporaryDirectory() as folder:
        place, program = Path(folder) / "socket", Path(folder) / "python"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {__file__} call {place} "$@"\n')
        program.chmod(0o755)
        server = subprocess.Popen([sys.executable, __file__, "serve", str(place)], stdin=subprocess.DEVNULL)
        try:
            while not place.exists():
                if server.poll() is not None:
                    raise RuntimeError("the process that loads the libraries has ended")
                time.sleep(0.05)
            yield str(program)
        finally:
            server.kill()
            server.wait()


def serve(place: str) -> None:
    """Load the libraries, then fork for every call."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            __import__(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place}.new")
    listener.listen()
    Path(f"{place}.new").rename(place)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            keep(connection)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def keep(connection: socket.socket) -> None:
    """Fork once more for the module, wait for its end, and tell its exit code."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as stream:
        asked = json.loads(stream.read(int.from_bytes(size, "little")))
    child = os.fork()
    if child == 0:
        connection.close()
        become(asked, streams)
    for each in streams:
        os.close(each)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(code.to_bytes(4, "little", signed=True))
    os._exit(0)


def become(asked: dict, streams: list[int]) -> None:
    """Run the module as Python would have run it."""
    for number, each in enumerate(streams):
        os.dup2(each, number)
    os.setsid()
    os.chdir(asked["folder"])
    sys.path[0] = asked["folder"]
    os.environ.clear()
    os.environ.update(asked["environment"])
    assert asked["arguments"][0] == "-m"
    sys.argv = asked["arguments"][1:]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def call(place: str, arguments: list[str]) -> int:
    """Ask for a fork, and give the exit code of what runs in it."""
    asked = json.dumps({"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(place)
        socket.send_fds(connection, [len(asked).to_bytes(8, "little")], [0, 1, 2])
        connection.sendall(asked)
        return int.from_bytes(connection.recv(4), "little", signed=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(call(sys.argv[2], sys.argv[3:]))
