"""Python processes that start at once: forked from one that has loaded the libraries.

A process of a test costs five seconds of imports before it does anything. Here one process pays them (`serve`), and a
fork of it becomes each `python -m MODULE`, `python -c CODE`, `python FILE` or `trunkline` that a test starts, with the
streams, folder and environment of its caller; `Popen` stands in for `subprocess.Popen`. What it cannot start so, a program
or a Python of another kind, it starts as ever. All forks share one seed of hashes: tests of what that could hide start
real ones (`cold`).
"""

import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "torchvision.models.detection", "torchvision.models.segmentation", "timm.optim", "safetensors.torch",
             "PIL.Image", "pydantic", "rich.progress", "jinja2", "matplotlib.figure", "scipy.ndimage", "hotcoco",
             "pycocotools.mask", "segmentation_models_pytorch", "torch.distributed")  # fmt: skip
OURS = ("trunkline.pipelines.command.cli", "trunkline.pipelines.training.train", "trunkline.pipelines.evaluation.evaluate",
        "trunkline.pipelines.prediction.predict", "trunkline.cluster.launchers.worker",
        "trunkline.pipelines.report.report")  # fmt: skip
PLACE = "TRUNKLINE_TEST_WARM"  # the variable that names the socket


def serve(place: str, modules: Sequence[str]) -> None:
    """Load the modules, then fork for every call; end when asked to."""
    for name in modules:
        with contextlib.suppress(ImportError):
            __import__(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place}.new")
    listener.listen()
    Path(f"{place}.new").rename(place)
    signal.signal(signal.SIGTERM, lambda *_: (_reap(), os._exit(0)))
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            keep(connection)
        connection.close()
        _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def keep(connection: socket.socket) -> None:
    """Fork once more for what is asked, tell its number, wait for its end, and tell its exit code."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as stream:
        asked = json.loads(stream.read(int.from_bytes(size, "little")))
    child = os.fork()
    if child == 0:
        connection.close()
        become(asked, streams)
    for each in streams:
        os.close(each)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(child.to_bytes(4, "little"))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(code.to_bytes(4, "little", signed=True))
    os._exit(0)


def become(asked: dict[str, Any], streams: list[int]) -> None:
    """Run what is asked as Python would have run it."""
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)  # may be of another kind now
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if asked["session"]:
        os.setsid()
    os.chdir(asked["folder"])
    ours = {sys.path[0], *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    os.environ.clear()
    os.environ.update(asked["environment"])
    if PLACE in os.environ:
        subprocess.Popen = Popen
    how, *words = asked["arguments"]
    first = str(Path(words[0]).parent) if how == "file" else asked["folder"]
    others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    sys.path[:] = [first, *others, *(p for p in sys.path if p not in ours)]
    sys.argv = words if how != "code" else ["-c", *words[1:]]
    try:
        if how == "module":
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        elif how == "file":
            runpy.run_path(words[0], run_name="__main__")
        else:
            exec(compile(words[0], "<string>", "exec"), {"__name__": "__main__"})
        code: Any = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(BaseException):
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def started(modules: Sequence[str] = (*LIBRARIES, *OURS)) -> subprocess.Popen:
    """Start the process that forks, and name its socket in the environment; it is ready a while later."""
    place = Path(tempfile.mkdtemp(prefix="warm-")) / "socket"
    server = Cold([sys.executable, __file__, "serve", str(place), *modules], stdin=subprocess.DEVNULL)
    os.environ[PLACE] = str(place)
    return server


def stopped(server: subprocess.Popen) -> None:
    os.environ.pop(PLACE, None)
    server.terminate()
    server.wait()


@contextlib.contextmanager
def warm_python() -> Iterator[None]:
    """Let what this process starts with `subprocess` be forks of a process that has loaded libraries, nothing of ours."""
    server = started(LIBRARIES)
    subprocess.Popen = Popen
    try:
        yield
    finally:
        subprocess.Popen = Cold
        stopped(server)


def asked_of(arguments: Any) -> list[str] | None:
    """Say how to run a command in a fork; None where it cannot be."""
    words = [str(w) for w in arguments] if isinstance(arguments, (list, tuple)) else []
    if not words or PLACE not in os.environ:
        return None
    if words[0] == str(Path(sys.executable).with_name("trunkline")):
        return ["file", *words]
    if words[0] != sys.executable or len(words) < 2:
        return None
    if words[1] in ("-m", "-c"):
        return ["module" if words[1] == "-m" else "code", *words[2:]]
    return None if words[1].startswith("-") else ["file", str(Path(words[1]).absolute()), *words[2:]]


Cold = subprocess.Popen


class Popen(Cold):
    """A process like any other of `subprocess`, but forked where it can be."""

    _line: socket.socket | None = None

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags,
                       shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid,
                       umask, start_new_session, process_group=-1):  # fmt: skip
        asked = None if shell or preexec_fn or executable else asked_of(args)
        if asked is None:
            rest = (restore_signals, gid, gids, uid, umask, start_new_session, process_group)
            return super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
                                          creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite,
                                          *rest)  # fmt: skip
        wanted = {
            "arguments": asked, "folder": str(Path(cwd or ".").absolute()), "session": start_new_session,
            "environment": {str(k): str(v) for k, v in (os.environ if env is None else env).items()},
        }  # fmt: skip
        told = json.dumps(wanted).encode()
        streams = [number if given == -1 else given for number, given in enumerate((p2cread, c2pwrite, errwrite))]
        self._line = _connected(os.environ[PLACE])
        socket.send_fds(self._line, [len(told).to_bytes(8, "little")], streams)
        self._line.sendall(told)
        self.pid = int.from_bytes(self._line.recv(4, socket.MSG_WAITALL), "little")
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        return None

    def _internal_poll(self, *args, **kwargs):
        if self._line is None:
            return super()._internal_poll(*args, **kwargs)
        return self._ended(0)

    def _wait(self, timeout):
        if self._line is None:
            return super()._wait(timeout)
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _ended(self, timeout: float | None) -> int | None:
        """Wait at most so long (None: for ever) for the exit code."""
        if self.returncode is None and select.select([self._line], [], [], timeout)[0]:
            assert self._line is not None
            told = self._line.recv(4, socket.MSG_WAITALL)
            self.returncode = int.from_bytes(told, "little", signed=True) if len(told) == 4 else -signal.SIGKILL
            self._line.close()
        return self.returncode


def _connected(place: str) -> socket.socket:
    deadline = time.monotonic() + 120
    while not Path(place).exists():
        if time.monotonic() > deadline:
            raise RuntimeError("the process that loads the libraries is not there")
        time.sleep(0.05)
    line = socket.socket(socket.AF_UNIX)
    line.connect(place)
    return line


if __name__ == "__main__":
    serve(sys.argv[2], sys.argv[3:])
