"""Workers on a Ray cluster: Ray Train starts them and starts them again; each goes on from the run's last checkpoint."""

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trunkline.ground.errors import EngineError

from ..config import Launch
from ..workers import Workers, where
from .code import stage
from .mailbox import Mailbox
from .outcome import WorkerFailed, WorkersStopped, outcome
from .own_output import own_output
from .ray_options import RayOptions
from .worker import Ending, Job, Place, perform

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a dead worker is noticed within it
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "6",  # then Ray looks again which resources there are: a dead node's are none
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
WORKER_ENVIRONMENT = ("DS_ACCELERATOR", "CUBLAS_WORKSPACE_CONFIG", "TRUNKLINE_CACHE", "GLOO_SOCKET_IFNAME",
                      "NCCL_SOCKET_IFNAME")  # fmt: skip

_COORDINATOR, _LOOK = "AutoscalingCoordinator", 2.0  # Ray's actor that tells a group how large it can be; seconds


def work(config: dict[str, Any]) -> None:
    """Do the job on one worker, as Ray Train calls it."""
    import ray

    mailbox, job = config["mailbox"], Job(**config["job"])

    def attend(workers: Workers) -> None:
        workers.tell = lambda event: mailbox.post.remote(event)
        if workers.leads:
            mailbox.post.remote({"kind": "start", "size": workers.size, "node": where()})
            threading.Thread(target=_watch, args=(workers, mailbox), daemon=True).start()

    os.environ["TRUNKLINE_CORES"] = str(config["cores"])
    ending = replace(perform(job, attend), log=_log())
    ray.get(mailbox.post.remote({"kind": "ending", **asdict(ending)}))
    if not ending.error:
        return
    _let_go()  # so that the others notice
    if ending.mistake or (ending.lost and _explained(mailbox)):
        return  # starting again would fail the same way; the terminal is told why
    raise WorkerFailed(ending.error)


def _watch(workers: Workers, mailbox: Any) -> None:
    """Wait for the wish to end, and pass it on to the group."""
    import ray

    while True:
        signum: Any = ray.get(mailbox.asked.remote())
        if signum:
            workers.signal = signum
            workers.ask("stop")
            return
        time.sleep(0.5)


def _explained(mailbox: Any, seconds: float = 5.0) -> bool:
    """Say whether another worker ended by the user's mistake or without an error (it was asked to).

    Waits up to `seconds` to hear of it.
    """
    import ray

    for _ in range(int(seconds / 0.25)):
        if any(e["mistake"] or not e["error"] for e in ray.get(mailbox.endings.remote())):
            return True
        time.sleep(0.25)
    return False


def _let_go() -> None:
    from ..workers import leave

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    thread.join(5)


def _log() -> str:
    try:
        return str(Path("/proc/self/fd/2").readlink())
    except OSError:
        return ""


def run(job: Job, launch: Launch, place: Place) -> Any:
    """Run the job on the launch's workers; return what the leading one gives back.

    Raises EngineError for what a worker calls the user's mistake, WorkerFailed where the budget of failures is spent,
    with the first cause, and WorkersStopped where a signal comes before there are workers.
    """
    prepare()
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with tempfile.TemporaryDirectory() as scratch:
        code = stage(Path(scratch))
        with connected(launch, code):
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
            trainer = _trainer(job, launch, place.storage, mailbox)
            failure: list[BaseException] = []
            fitting = threading.Thread(target=_fit, args=(trainer, failure), daemon=True)
            if lacking := _lacking(launch):
                place.show({"kind": "note", "text": lacking})
            begun, working, looked = False, False, time.monotonic()
            with _forwarding(mailbox) as passed:
                fitting.start()
                while fitting.is_alive() and passed.count(signal.SIGINT) < 2 and (begun or not passed):
                    for event in ray.get(mailbox.take.remote()):
                        working = event["kind"] == "start" or (working and event["kind"] != "ending")
                        begun |= working
                        place.show(event)
                    if not working and time.monotonic() - looked > _LOOK:
                        _look_again()
                        looked = time.monotonic()
                    fitting.join(0.2)
                for event in ray.get(mailbox.take.remote()):
                    place.show(event)
                if passed.count(signal.SIGINT) > 1:
                    raise KeyboardInterrupt
                if passed and not begun:  # there is no worker yet that could hear of it
                    raise WorkersStopped(passed[0])
            found = ray.get(mailbox.endings.remote())
    endings = [Ending(**{k: v for k, v in e.items() if k != "kind"}) for e in found]
    return outcome(endings, failed=bool(failure), died=_died(endings, failure))


def _died(endings: list[Ending], failure: list[BaseException]) -> str:
    """Tell what Ray saw of workers that said nothing of their end."""
    if not failure:
        return ""
    heard = {e.rank for e in endings}
    said = getattr(failure[0], "worker_failures", {})
    silent = {rank: str(error).strip().splitlines()[0] for rank, error in said.items() if rank not in heard}
    return "; ".join(f"worker {rank} died: {why}" for rank, why in silent.items()) or str(failure[0])


def _fit(trainer: Any, failure: list[BaseException]) -> None:
    try:
        trainer.fit()
    except BaseException as error:
        failure.append(error)


def _trainer(job: Job, launch: Launch, storage: str, mailbox: Any) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    own: RayOptions = launch.own
    backend = "cpu:gloo,cuda:nccl" if own.gpus else "gloo"
    return TorchTrainer(
        work,
        train_loop_config={"mailbox": mailbox, "job": asdict(job), "cores": own.cores},
        scaling_config=ScalingConfig(
            num_workers=launch.workers, use_gpu=own.gpus > 0, placement_strategy=own.placement,
            resources_per_worker={"CPU": own.cpus, **({"GPU": own.gpus} if own.gpus else {})},
            elastic_resize_monitor_interval_s=own.grow,
        ),
        run_config=RunConfig(
            name="ray", storage_path=storage,
            failure_config=FailureConfig(max_failures=own.failures, max_preemption_failures=own.preemptions),
        ),
        torch_config=TorchConfig(backend=backend, timeout_s=int(max(1, job.timeout))),
    )  # fmt: skip


def prepare() -> None:
    """Set what Ray reads from the environment, before it is imported."""
    os.environ.update({k: os.environ.get(k, v) for k, v in ENVIRONMENT.items()})


_NOBODY = (
    "address={}: no Ray cluster answers there; give host:port of its head (ray start --head prints it), auto on one of its "
    "nodes, or leave it out to start one on this machine"
)


def _reach(address: str) -> None:
    """Raise EngineError where nobody listens at host:port, as Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # auto, or a name that Ray knows
    if not port.isdecimal():
        raise EngineError(f"address={address}: expected host:port, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise EngineError(f"{_NOBODY.format(address)} ({error})") from None


@contextmanager
def connected(launch: Launch, code: Path) -> Iterator[None]:
    """Connect to a Ray cluster for a while: to the one at the address, or to a new one on this machine alone.

    Raises EngineError where no cluster answers.
    """
    import ray
    from ray.exceptions import AuthenticationError

    own: RayOptions = launch.own
    passed = {k: os.environ[k] for k in WORKER_ENVIRONMENT if k in os.environ}
    threads = {"OMP_NUM_THREADS": str(own.cores)}
    settings: dict[str, Any] = {
        "runtime_env": {"working_dir": str(code), "env_vars": {**threads, **passed}},
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    if own.address:
        _reach(own.address)
        settings["address"] = own.address
    else:
        settings |= {"address": "local", "num_cpus": max(os.cpu_count() or 1, int(launch.most * own.cpus + 0.999)),
                     "include_dashboard": False}  # fmt: skip
    try:
        ray.init(**settings)
    except (ConnectionError, AuthenticationError):
        raise EngineError(
            f"{_NOBODY.format(own.address)}. Of a cluster with token authentication: set RAY_AUTH_MODE=token here too, "
            "with its nodes' ~/.ray/auth_token"
        ) from None
    try:
        with own_output():
            yield
    finally:
        ray.shutdown()


@contextmanager
def _forwarding(mailbox: Any) -> Iterator[list[int]]:
    """Turn SIGTERM and Ctrl-C into the wish that the workers save and end; yields the list of those that came."""
    passed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield passed
        return

    def ask(signum: int, frame: Any) -> None:
        passed.append(signum)
        mailbox.ask.remote(signum)

    before = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield passed
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _look_again() -> None:
    """Let Ray's coordinator see now which nodes there are: by itself it looks every 20 s, and a smaller group waits."""
    import ray

    with suppress(Exception):  # it is Ray's own: where another version has none, the group waits
        coordinator: Any = ray.get_actor(_COORDINATOR, namespace=_COORDINATOR)
        coordinator.get_reserved_resources.remote("trunkline", recompute=True)


def _lacking(launch: Launch) -> str:
    """Say what a cluster has too little of for the workers to start; empty where it has enough.

    Raises EngineError where the cluster is this machine alone, to which nothing can be added.
    """
    import ray

    least, own = launch.least, launch.own
    wanted = {"CPU": least * own.cpus, "GPU": least * own.gpus}
    have = ray.cluster_resources()
    if all(have.get(name, 0) >= number for name, number in wanted.items()):
        return ""
    needs, has = (", ".join(f"{of.get(n, 0):g} {n}" for n in wanted) for of in (wanted, have))
    if not own.address:
        raise EngineError(
            f"workers={least}, cpus={own.cpus:g}, gpus={own.gpus:g}: need {needs}; this machine has {has}"
        )
    return f"waiting for room: {least} workers need {needs}; the cluster has {has}"
