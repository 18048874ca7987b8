"""The run of `shared_tasks.py` written out by hand, with torch alone: orders, batches, losses, balances, sums, steps."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from trunkline.ground.keys import key, seed_model, seed_sample
from trunkline.pipelines.models.build import build
from trunkline.pipelines.recipe.demo_data import placed
from trunkline.tasks.images.fit import padded

TASKS = ("classification", "boxes", "some")


class Data:
    """The pictures of some tasks, in the order that a seed gives; `rows` says which sample of each task a picture is."""

    def __init__(self, tasks: dict, size: int, micro: int, seed: int):
        self.tasks, self.size, self.micro = tasks, size, micro
        self.samples = {name: task.samples("train") for name, task in tasks.items()}
        files: list[str] = []
        for samples in self.samples.values():
            files += [f for i in range(len(samples)) if (f := str(samples.source(i))) not in files]
        self.rows = {
            name: [next((i for i in range(len(s)) if str(s.source(i)) == f), -1) for f in files]
            for name, s in self.samples.items()
        }
        self.count, self.seed = len(files), seed
        self.alike = next(iter(self.samples.values())).groups(True)

    def pictures(self, number: int) -> list[list[tuple[int, int]]]:
        """The micro-batches of the batch `number`: pairs of epoch and picture."""
        per_epoch = self.count // self.size
        epoch, place = divmod(number, per_epoch)
        order = np.random.Generator(np.random.PCG64(key(self.seed, "order", epoch))).permutation(self.count)
        if self.alike is not None:  # the square scenes are all of one shape: a stable sort of nothing
            assert len(set(self.alike.tolist())) == 1
        mine = order[place * self.size : (place + 1) * self.size]
        return [[(epoch, int(i)) for i in mine[m : m + self.micro]] for m in range(0, self.size, self.micro)]

    def draw(self, name: str, epoch: int, picture: int):
        """A task's sample of a picture, changed as that epoch sees it."""
        sample = self.samples[name][self.rows[name][picture]]
        seed_sample(key(self.seed, epoch, picture, 0))
        return self.tasks[name].transform(True)(sample)

    def micro_batch(self, pictures: list[tuple[int, int]]):
        """Images, and for each task that labels some the positions of those, and its own batch."""
        if len(self.tasks) == 1:
            (name,) = self.tasks
            batch = self.tasks[name].collate([self.draw(name, *at) for at in pictures])
            return [(name, None, batch)]
        drawn = [{n: self.draw(n, *at) for n in self.tasks if self.rows[n][at[1]] >= 0} for at in pictures]
        images = padded([next(iter(found.values())).image for found in drawn], 128)
        parts = []
        for name, task in self.tasks.items():
            at = [i for i, found in enumerate(drawn) if name in found]
            if at:
                own = task.collate([drawn[i][name] for i in at])
                parts.append((name, at, replace(own, images=images[at])))
        return [(name, at, batch, images) for name, at, batch in parts]


class Balance:
    """What each task's loss is multiplied by, in the words of the docs."""

    def __init__(self, name: str, model, weights: dict[str, float]):
        self.name, self.model, self.weights = name, model, weights
        self.factors = {task: torch.ones(()) for task in weights}
        self.strength = {task: torch.zeros((), dtype=torch.float64) for task in weights}
        self.x = self.first = self.second = torch.zeros(len(weights), dtype=torch.float64)
        self.before, self.steps = None, 0

    def weigh(self, task: str, loss: Tensor) -> Tensor:
        if self.name == "uncertainty":
            s = self.model.heads[task].log_variance[0]
            return loss * (-s).exp() * 0.5 + s * 0.5
        return loss if self.name == "fixed" else loss * self.factors[task]

    def after(self, squares: list[dict], means: dict[str, Tensor]) -> None:
        if self.name == "gradient_norm":
            self._by_norms(squares)
        elif self.name == "famo":
            self._by_losses(torch.stack([means[task] for task in self.weights]))

    def _by_norms(self, squares: list[dict]) -> None:
        weights = torch.tensor(list(self.weights.values()), dtype=torch.float64)
        table = torch.zeros(len(squares), 2, len(weights), dtype=torch.float64)
        for m, found in enumerate(squares):
            for t, task in enumerate(self.weights):
                if task in found:
                    table[m, 0, t], table[m, 1, t] = found[task]
        total, samples = table.sum(0)
        old = torch.stack(list(self.strength.values()))
        now = torch.where(samples > 0, (total / samples.clamp(min=1)).sqrt(), old)
        self.strength = dict(zip(self.weights, now, strict=True))
        known = now > 0
        inverse = torch.where(known, 1 / now, 0.0)
        factors = torch.where(known, inverse * ((weights * known).sum() / (weights * inverse).sum()), 1.0)
        self.factors = dict(zip(self.weights, factors.float(), strict=True))

    def _by_losses(self, now: Tensor) -> None:
        now = now.log()
        if self.before is not None:
            now = self.before.lerp(now, 1 - 0.98)
            z, fall = self.x.softmax(0), self.before - now
            gradient = z * (fall - (z * fall).sum()) + 0.01 * (1 - 0.98) * self.x
            self.steps += 1
            self.first = self.first.lerp(gradient, 1 - 0.9)
            self.second = self.second.lerp(gradient.square(), 1 - 0.999)
            scale = (self.second / (1 - 0.999**self.steps)).sqrt() + 1e-8
            self.x = self.x - 0.025 * (self.first / (1 - 0.9**self.steps)) / scale
        self.before = now
        part = self.x.softmax(0) / now.exp()
        self.factors = dict(zip(self.weights, (part * len(now) / part.sum()).float(), strict=True))


class Norms:
    """The batch norms of a plain trunk, whose numbers are put in and taken out for each pass as `norms` say."""

    def __init__(self, model, kinds: dict[str, str]):
        self.kinds = {task: kinds.get(task, "shared") for task in TASKS}
        found = {n: m for n, m in model.named_modules() if n.startswith("backbone.") and isinstance(m, nn.BatchNorm2d)}
        self.norms = list(found.values())
        self.shared = [b for m in self.norms for b in m.buffers()]
        self.own = {task: [b.clone() for b in self.shared] for task, kind in self.kinds.items() if kind == "own"}
        self.names = [f"{n}.statistics.TASK.{b}" for n, m in found.items() for b, _ in m.named_buffers()]
        self.sums = {task: [torch.zeros_like(b, dtype=torch.float64) for b in own] for task, own in self.own.items()}
        self.ran = dict.fromkeys(self.own, 0)

    def named(self) -> dict[str, Tensor]:
        return {
            n.replace("TASK", task): b for task, own in self.own.items() for n, b in zip(self.names, own, strict=True)
        }

    def before(self, task: str) -> None:
        for norm in self.norms:
            norm.train(self.kinds[task] != "frozen")
        for b, own in zip(self.shared, self.own.get(task, []), strict=False):
            b.data.copy_(own)

    def after(self, task: str) -> None:
        if task in self.own:
            self.ran[task] += 1
            for total, b in zip(self.sums[task], self.shared, strict=True):
                total.add_(b)

    def finish(self) -> None:
        for task, own in self.own.items():
            for b, total in zip(own, self.sums[task], strict=True):
                if self.ran[task]:
                    mean = total / self.ran[task]
                    b.copy_(mean if b.is_floating_point() else mean.round())
                total.zero_()
            self.ran[task] = 0


def by_hand(recipe, updates: int) -> dict[str, Tensor]:
    """Run the updates; return weights, statistics and averages."""
    recipe = placed(recipe)
    tasks, model, _ = build(replace(recipe, norms={}))
    statistics = Norms(model, recipe.norms)
    model.train()
    shared = bool(recipe.shared_batch)
    groups = [("classification",), ("boxes", "some")] if shared else [(name,) for name in TASKS]
    data = []
    for names in groups:
        own = recipe.batches[names[0]]
        seed = key(recipe.seed, "phase", 0, names[0])
        data.append(Data({n: tasks[n] for n in names}, own.size, own.micro, seed))
    weights = {"classification": 1.0, "boxes": 0.3, "some": 0.7}
    balance = Balance(recipe.balance, model, weights)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 1e-3},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=0.005,
        momentum=0.9,
    )
    buffers = [b for n, b in model.named_buffers() if n in model.state_dict()]
    live = {n: t for n, t in [*model.named_parameters(), *model.named_buffers()] if n in model.state_dict()}
    live |= statistics.named()
    shadow = {n: t.detach().clone() for n, t in live.items()}
    for update in range(updates):
        listed = [(d, m, at) for d in data for m, at in enumerate(d.pictures(update))]
        count = len(listed)
        labelled = {n: sum(d.rows[n][p] >= 0 for d, _, at in listed if n in d.tasks for _, p in at) for n in TASKS}
        sums: dict[nn.Parameter, Tensor] = {}
        first = [b.clone() for b in buffers]
        means = [torch.zeros_like(b, dtype=torch.float64) for b in buffers]
        ran = [0] * len(buffers)
        of_names: dict[str, dict[str, Tensor]] = {n: {} for n in TASKS}
        parts_of = dict.fromkeys(TASKS, 0.0)
        squares = []
        for d, m, at in listed:
            own_key = key(d.seed, "model", update, m)
            parts = d.micro_batch(at)
            whole = parts[0][2] if len(parts[0]) == 3 else replace(parts[0][2], images=parts[0][3], sizes=None)
            if len(parts[0]) == 4:
                whole.sizes = torch.tensor([[64, 64]] * len(at))
            seed_model(key(own_key, "trunk"), "cpu")
            statistics.before(parts[0][0])
            maps = model.backbone(model.normalise(whole))
            statistics.after(parts[0][0])
            totals, squares_of = [], {}
            for name, rows, batch, *_ in parts:
                seed_model(key(own_key, name), "cpu")
                needed = {n: maps[n] for n in model.heads[name].needs}
                if rows is not None and len(rows) < len(at):
                    needed = {n: t[rows] for n, t in needed.items()}
                read = needed
                if (
                    recipe.balance == "gradient_norm"
                ):  # what flows into each task's own view of a map is its gradient alone
                    read = {n: t.view_as(t) for n, t in needed.items()}
                batch.key = own_key
                losses = model.heads[name].losses(read, batch)
                loss = (
                    torch.stack([v.float() for v in losses.values()]).sum()
                    if len(losses) > 1
                    else next(iter(losses.values()))
                )
                own = len(batch.ids)
                shared_out = math.gcd(own, labelled[name])
                scale = weights[name] * count * (own // shared_out) / (labelled[name] // shared_out)
                total = balance.weigh(name, loss) * scale
                totals.append(total)
                part = own / len(at)
                parts_of[name] += part
                for n, v in losses.items():
                    of_names[name][n] = of_names[name].get(n, 0.0) + v.detach().double() * part
                if recipe.balance == "gradient_norm":
                    found = torch.autograd.grad(
                        total, [read[n] for n in sorted(read)], retain_graph=True, allow_unused=True
                    )
                    norms = [torch.linalg.vector_norm(g, dtype=torch.float64) for g in found if g is not None]
                    square = torch.stack(norms).square().sum() * (own / scale) ** 2
                    squares_of[name] = (square / balance.factors[name].double().square(), own)
            squares.append(squares_of)
            held = {id(b) for b in statistics.shared if parts[0][0] in statistics.own}
            for i, (mean, b, start) in enumerate(zip(means, buffers, first, strict=True)):
                if not torch.equal(b, start) and id(b) not in held:
                    ran[i] += 1
                    mean.add_(b)
                b.data.copy_(start)
            (torch.stack(totals).sum() if len(totals) > 1 else totals[0]).backward()
            for p in parameters:
                if p.grad is not None:
                    sums[p] = sums.get(p, torch.zeros_like(p, dtype=torch.float64)) + p.grad
                    p.grad = None
        for p in parameters:
            p.grad = (sums[p] / count).to(p.dtype) if p in sums else None
        for mean, b, n in zip(means, buffers, ran, strict=True):
            if n:
                b.copy_(mean / n if b.is_floating_point() else (mean / n).round())
        statistics.finish()
        for group in optimizer.param_groups:
            group["lr"] = 0.005 * ((1 + math.cos(math.pi * update / updates)) / 2)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        balance.after(
            squares,
            {n: torch.stack([v / parts_of[n] for v in of_names[n].values()]).sum() for n in TASKS if parts_of[n]},
        )
        decay = min(0.9, (1 + update) / (10 + update))
        for n, t in live.items():
            shadow[n].lerp_(t.detach(), 1 - decay) if t.is_floating_point() else shadow[n].copy_(t)
    return {f"model:{n}": t.detach() for n, t in live.items()} | {f"ema:{n}": t for n, t in shadow.items()}
