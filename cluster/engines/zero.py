"""DeepSpeed's ZeRO as an engine: what of an update's memory is divided among the workers.

stage 0   nothing; gradients are summed by the rule of `sums`, and every worker steps
stage 1   the optimizer's state; gradients are summed by the same rule. The number of workers is a power of two
stage 2   the gradients too, which DeepSpeed reduces
stage 3   and the weights

(Rajbhandari et al. 2020, section 5.) Stages 0 and 1 end with the weights of one process to the last bit; 2 and 3 do so
with two micro-batches an update and no clipping, and to rounding otherwise.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore

from trunkline.ground.errors import EngineError

from ..checkpoint import SAME, Parts
from ..config import Average, Learning, Machine
from ..contract import Losses, Report
from ..workers import Workers
from . import partition
from .average import MovingAverage, live_tensors
from .losses import summed
from .memory_format import lay_out, lay_out_calls
from .optimizer import names_of
from .torch_engine import Counts, TorchEngine, penalise
from .zero_options import ZeroOptions, refuse

BUCKET = 25_000_000  # elements that one of DeepSpeed's collectives carries


def config(zero: int, clip: float, offload: bool) -> dict[str, Any]:
    """Build DeepSpeed's configuration, with every key that decides a number; none is left to its default.

    Clipping is ours in stages 0 and 1. Precision is plain autocast's: DeepSpeed's own would reduce gradients in bf16.
    """
    optimization: dict[str, Any] = {
        "stage": zero,
        "contiguous_gradients": zero >= 2,
        "overlap_comm": False,
        "reduce_scatter": zero >= 2,
        "round_robin_gradients": False,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
        "stage3_prefetch_bucket_size": BUCKET,
        "sub_group_size": 10**12,  # the whole of a group steps at once
        "memory_efficient_linear": False,  # whose sums of (N, T, C) have other last bits than torch.nn.Linear
    }
    if offload:
        optimization["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": 1,  # unread: every update's size is ours
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": clip if zero >= 2 else 0.0,
        "prescale_gradients": False,
        "gradient_predivide_factor": 1.0,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        "torch_autocast": {"enabled": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": optimization,
        "wall_clock_breakdown": False,
        "dump_state": False,
        "steps_per_print": 10**12,
    }


@dataclass(frozen=True)
class Zero:
    """What DeepSpeed divides.

    stage      0 to 3
    offload    whether the optimizer's state (stages 1 to 3) lives in the host's memory
    units      of a mixture of tasks, prefixes of parameters that have a gradient in an update together or not at all: those
               without one are not moved then, in stages 0 and 1
    """

    stage: int = 0
    offload: bool = False
    units: tuple[str, ...] = ()


class DeepSpeedEngine(TorchEngine):
    """`TorchEngine` with DeepSpeed's step; the same contract and the same checkpoints at every stage.

    `TorchEngine.update` is the update, in its order; comments there name, line by line, what is done otherwise here.
    Raises EngineError where a stage cannot give what is asked for.
    """

    def __init__(
        self, model: nn.Module, losses: Losses, learning: Learning, machine: Machine, workers: Workers, zero: Zero
    ):
        if problems := refuse(learning.optimizer, machine, workers.size, zero.stage, zero.offload):
            raise EngineError("\n".join(problems))
        if zero.stage >= 2 and len(zero.units) > 1:
            raise EngineError(
                f"zero={zero.stage}: DeepSpeed moves a head that has no micro-batch in an update, by momentum and decay, and "
                f"this stage cannot be kept from it; a mixture of tasks needs zero=0 or zero=1"
            )
        self._average = learning.average  # made when DeepSpeed has the weights
        super().__init__(model, losses, replace(learning, average=Average(0.0)), machine, workers)
        self.zero, self.offload = zero.stage, zero.offload
        if zero.stage:
            _split(self.optimizer, model, zero.units)
            self._base = [group["lr"] for group in self.optimizer.param_groups]
        self._groups = names_of(model, self.optimizer)
        self._inner = self.optimizer
        self._named = dict(model.named_parameters())
        self._deepspeed: Any = None
        self._sharded: Any = None
        self._spare: Any = None  # a batch for passes that count nothing
        self._turns, self._scale = 0, 1.0

    def _start(self) -> None:
        """Hand the model to DeepSpeed, once, when it holds the weights that training begins from."""
        if self._deepspeed is not None:
            return
        os.environ.setdefault("DS_ACCELERATOR", self.device.type)
        os.environ.setdefault("LOCAL_RANK", "0")
        warnings.filterwarnings(
            "ignore", category=FutureWarning, module="torch.distributed"
        )  # names that DeepSpeed uses
        import deepspeed
        import deepspeed.ops

        _be_quiet()
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        ops: Any = deepspeed.ops
        ops.__compatible_ops__ = {}  # else a compiler builds a collective for a minute and a half
        lay_out(self.model, channels_last=False)  # DeepSpeed takes weights in the order of their elements
        self._deepspeed, self._sharded, *_ = deepspeed.initialize(
            model=self._call,
            optimizer=self.optimizer,
            config=config(self.zero, self.learning.optimizer.clip, self.offload),
        )
        if self.zero == 0:
            self._deepspeed.enable_backward_allreduce = False  # the sums are made already
            lay_out(self.model, self.machine.channels_last is True)
        else:
            lay_out_calls(self.model, self.machine.channels_last is True)
        if self.zero == 1:
            self._inner.register_step_pre_hook(self._hold_unused)
        elif self.zero and self.learning.optimizer.l1:
            self._inner.register_step_pre_hook(self._penalise)
        if self._average.decay > 0:
            self.average = MovingAverage(partition.live(live_tensors(self.model)), self._average)

    def wait(self) -> Report:
        """Let an update pass; DeepSpeed takes the model over all the same, so that a checkpoint is whole."""
        self._start()
        return super().wait()

    def _begin(self, own: Sequence[Any], micro_batches: Sequence[Any]) -> None:
        """Take the model over; in stages 2 and 3, agree on how often all workers run."""
        self._start()
        if self.zero >= 2:
            (count,) = self.workers.agree([len(own)], "an update")
            self._turns, self._scale = -(-count // self.workers.size), self.workers.size / count
            self._spare = micro_batches[-1]

    def _forward(self, batch: Any) -> dict[str, Tensor]:
        return (self._deepspeed if self.zero >= 2 else self._call)(self.losses, batch)

    def _backward(self, total: Tensor) -> None:
        if self.zero >= 2:
            self._deepspeed.backward(total * self._scale, scale_wrt_gas=False)
        else:
            total.backward()

    def _add_gradients(self, count: int) -> None:
        if self.zero < 2:
            super()._add_gradients(count)

    def _even_out(self, count: int) -> None:
        """Run passes at weight zero where this worker has fewer micro-batches than others, in stages 2 and 3."""
        for _ in range(self._turns - count if self.zero >= 2 else 0):
            with self.autocast():
                named = self._forward(self._spare.to(self.device))
            self._buffers.start()  # as if it had not run
            self._backward(summed(named) * 0.0)

    def _finish_gradients(self, counts: Counts) -> None:
        if self.zero < 2:
            super()._finish_gradients(counts)

    def _step(self, report: Report) -> bool:
        self._set_rates(self._sharded.param_groups)
        if self.zero < 2:
            self._penalise_and_clip(report)
        if self.zero == 1:
            self._used = {n for n, p in self._named.items() if p.grad is not None}
            for p in self._gradients.parameters:  # DeepSpeed takes gradients whole, and in the order of their elements
                p.grad = torch.zeros(p.shape, dtype=p.dtype, device=p.device) if p.grad is None else p.grad.contiguous()
        self._deepspeed.step()
        if self.zero >= 2 and self.learning.optimizer.clip:
            report.grad_norm = torch.as_tensor(self._deepspeed.get_global_grad_norm(), device=self.device)
        for p in self._gradients.parameters:
            p.grad = None
        return True

    def _hold_unused(self, optimizer: Any, *_: Any) -> None:
        """Leave a group where it is if its unit had no micro-batch: stage 1 steps group by group."""
        for group in optimizer.param_groups:
            if not self._used & set(self._groups[group["number"]]):
                for p in group["params"]:
                    p.grad = None

    def _penalise(self, optimizer: Any, *_: Any) -> None:
        for group in optimizer.param_groups:
            if self._named[self._groups[group["number"]][0]].ndim > 1:
                penalise(group["params"], self.learning.optimizer.l1)

    def weights(self, averaged: bool = False) -> dict[str, Tensor]:
        """Return the model's whole state dict; with `averaged`, the moving average's values where it has them."""
        state = super().weights(averaged)
        if self.zero < 3 or self._deepspeed is None:
            return state
        own = self.average.shadow if averaged and self.average else {}
        return {n: partition.whole(self._named[n], own.get(n)) if n in self._named else t for n, t in state.items()}

    def _optimizer_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        if self.zero == 0 or self._deepspeed is None:
            return super()._optimizer_state()
        return partition.gather_state(self._sharded, self._inner, self._named, self._groups)

    def _load_optimizer(self, tensors: dict[str, Tensor], plain: dict[str, Any], parts: Parts) -> None:
        if self.zero == 0:
            super()._load_optimizer(tensors, plain, parts)
            return self._start()
        if parts != SAME:
            raise EngineError(
                f"zero={self.zero}: a run that gets or loses a task goes on with zero=0 or without it: the optimizer's state of "
                "the others is divided here with theirs"
            )
        self._start()
        partition.scatter_state(self._sharded, self._inner, self._named, self._groups, tensors, plain)

    def _load_average(self, tensors: dict[str, Tensor], steps: int) -> None:
        assert self.average
        parts = {n: partition.part(self._named[n], t) if n in self._named else t for n, t in tensors.items()}
        self.average.load(parts, steps)

    def close(self) -> None:
        """Give the model back whole: the next phase's engine takes it over."""
        super().close()
        if self._deepspeed is not None:
            lay_out_calls(self.model, False)
            partition.release(self._deepspeed, self.weights(), self._named)


def making(options: ZeroOptions, units: Sequence[str]) -> Callable[..., DeepSpeedEngine]:
    """Return what makes an engine of the stage; `units` as in `Zero`."""
    return partial(DeepSpeedEngine, zero=Zero(options.stage or 0, options.offload, tuple(units)))


def _split(optimizer: torch.optim.Optimizer, model: nn.Module, units: Sequence[str]) -> None:
    """Give each unit groups of its own and number them: groups that step together can be left out together."""
    names = {id(p): n for n, p in model.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        for unit in ("", *units):
            own = [p for p in group["params"] if _unit(names[id(p)], units) == unit]
            if own:
                groups.append({**group, "params": own, "number": len(groups)})
    optimizer.param_groups = groups


def _unit(name: str, units: Sequence[str]) -> str:
    return next((u for u in units if name.startswith(u)), "")


def _be_quiet() -> None:
    """Send DeepSpeed's errors to stderr and drop its other remarks: stdout is for results that a machine may read."""
    logger = logging.getLogger("DeepSpeed")
    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.stream = sys.stderr  # not setStream: it flushes the old one, which may be closed
