"""What is measured: each part a contest, or several, and what is made of its scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from distil_nlp.benchmark import communication, inference, profile
from distil_nlp.benchmark import distilbert_loop as reference
from distil_nlp.benchmark import roofline as limits
from distil_nlp.benchmark import task_workload as task
from distil_nlp.benchmark import term_costs as costs
from distil_nlp.benchmark import textbrewer as brewer
from distil_nlp.benchmark import trainer_steps as ours
from distil_nlp.benchmark.interleaved import Contender, ContenderResult, run_interleaved
from distil_nlp.benchmark.task_workload import TaskWorkload
from distil_nlp.benchmark.workload import SIZES, Workload

REFERENCE, FINETUNING, MATMUL, PROFILED = "DistilBERT’s loop", "fine-tuning", "matrix products", "profile"
MASKED = "ours, masked tokens"
Say = Callable[[str], None]


@dataclass(frozen=True)
class BenchmarkSettings:
    """What to measure, and how.

    Attributes:
        parts: names of `PARTS`.
        model, glue: for the parts `task` and `terms`: a model with its tokenizer, and GLUE's data.
        terms: for the part `terms`: those to measure, by name; all if None.
        rounds: steps that count, of each contender.
        threads: of each contender's process; PyTorch's own choice if None.
    """

    parts: tuple[str, ...] = ("mlm",)
    size: str = "base"
    batch: int = 8
    length: int = 128
    rounds: int = 7
    warm_up: int = 2
    threads: int | None = None
    device: str = "cpu"
    bf16: bool = False
    model: str | None = None
    glue: str | None = None
    terms: tuple[str, ...] | None = None

    def work(self, **changes: Any) -> Workload:
        return Workload(**{"size": SIZES[self.size], "batch": self.batch, "length": self.length,
                       "device": self.device, "bf16": self.bf16, **changes})  # fmt: skip

    def task(self, name: str) -> TaskWorkload:
        return TaskWorkload(self.model, self.glue, name, device=self.device, bf16=self.bf16)

    def play(
        self, contenders: Mapping[str, Contender], say: Say, rounds: int | None = None
    ) -> dict[str, ContenderResult]:
        how = {"warm_up": self.warm_up, "threads": self.threads, "say": say}
        return run_interleaved(contenders, rounds=rounds or self.rounds, **how)


def mlm(settings: BenchmarkSettings, say: Say) -> dict[str, Any]:
    """A language-modelling step: ours with each set of rows; the ways of others as their users run them, and
    DistilBERT's once more with all that does not touch its loop."""
    work = settings.work()
    as_it_comes = partial(Contender, keeps_memory=False)
    scores = settings.play(
        {
            REFERENCE: as_it_comes(reference.run_distilbert_loop, {"work": work}),
            "DistilBERT’s loop, KL on masked tokens": as_it_comes(
                reference.run_distilbert_loop, {"work": work, "only_masked": True}
            ),
            "DistilBERT’s loop, SDPA, memory kept": Contender(
                reference.run_distilbert_loop, {"work": work, "attention": "sdpa"}
            ),
            "TextBrewer": as_it_comes(brewer.run_textbrewer, {"work": work}),
            "ours, all tokens": Contender(ours.run_trainer, {"work": work, "rows": "all"}),
            "ours, 30 % of the tokens": Contender(ours.run_trainer, {"work": work, "rows": 0.3}),
            MASKED: Contender(ours.run_trainer, {"work": work}),
            MATMUL: Contender(limits.run_matmuls, {"work": work, "head_rows": work.masked}),
        },
        say,
    )
    rates = scores.pop(MATMUL).told.get("gflops", {})
    say("profiling a step")
    profiled = settings.play(
        {PROFILED: Contender(profile.run_profiled, {"work": work}, tells_memory=False)}, say, rounds=1
    )
    head_rows = {"ours, all tokens": work.tokens, "ours, 30 % of the tokens": round(0.405 * work.tokens)}
    head_rows[MASKED] = work.masked
    flops = {name: limits.step_flops(work, rows) for name, rows in head_rows.items()}
    found = {"steps": _told(scores, REFERENCE), "tokens": work.tokens, "matrix_products_gflops": rates}
    found["shares_of_time"] = profiled[PROFILED].told.get("shares", {})
    return found | _utilisation(scores, rates, flops)


def options(settings: BenchmarkSettings, say: Say) -> dict[str, Any]:
    """What keeping freed memory brings, to ours and to DistilBERT's loop, and what compiling brings to ours."""
    work = settings.work()
    plays = {
        REFERENCE: Contender(reference.run_distilbert_loop, {"work": work}),
        MASKED: Contender(ours.run_trainer, {"work": work}),
    }
    found = {
        f"{name}, {how}": dataclasses.replace(one, keeps_memory=keeps)
        for name, one in plays.items()
        for how, keeps in (("memory given back", False), ("memory kept", True))
    }
    compiled = Contender(ours.run_trainer, {"work": work, "compiled": True}, tells_memory=settings.device != "cpu")
    found[f"{MASKED}, memory kept, compiled"] = compiled
    return {"steps": _told(settings.play(found, say), f"{REFERENCE}, memory given back")}


def attention(settings: BenchmarkSettings, say: Say) -> dict[str, Any]:
    """What attention maps of three layers cost at 512 tokens."""
    work = settings.work(batch=max(settings.batch * settings.length // 512, 1), length=512)
    depth = work.size.layers // 2
    layers = sorted({max((i + 1) * depth // 3 - 1, 0) for i in range(3)})
    pairs = [(2 * layer + 1, layer) for layer in layers]
    without, along = "without attention", "attention maps of 3 layers"
    scores = settings.play(
        {
            without: Contender(ours.run_trainer, {"work": work}),
            along: Contender(ours.run_trainer, {"work": work, "attention": pairs}),
        },
        say,
    )
    whole = 4 * work.batch * work.size.heads * work.length**2 / 2**20
    return {"steps": _told(scores, without), "one_layer_of_whole_maps_mib": round(whole, 1)}


def task_stage(settings: BenchmarkSettings, say: Say) -> dict[str, Any]:
    """Epochs of a task, ours with the teacher asked and with its answers at hand, beside plain fine-tuning."""
    found = {}
    for name in ("mrpc", "sst2"):
        say(f"task {name}")
        work = settings.task(name)
        scores = settings.play(
            {
                FINETUNING: Contender(task.run_finetuning, {"work": work}),
                "ours, teacher asked": Contender(task.run_distillation, {"work": work}),
                "ours, answers kept": Contender(task.run_distillation, {"work": work, "cached": True}),
                "ours, answers kept, attention too": Contender(
                    task.run_distillation, {"work": work, "cached": True, "attention": True}
                ),
                "TextBrewer": Contender(task.run_textbrewer_task, {"work": work}, keeps_memory=False),
            },
            say,
        )
        found[name] = {"epochs": _told(scores, FINETUNING), "padding_share": round(task.workload_padding(work), 4)}
    return found


def terms(settings: BenchmarkSettings, say: Say) -> dict[str, Any]:
    """What each term costs: a step with it beside the soft targets, and one with those alone, group by group."""
    found: list[dict[str, Any]] = []
    chosen = settings.terms or costs.MEASURED
    for task_name, names in costs.term_groups(chosen):
        say(f"terms on {task_name}: {', '.join(names)}")
        work = settings.task(task_name)
        plays = {costs.SOFT_TARGETS_ONLY: Contender(costs.run_with_term, {"work": work})}
        plays |= {name: Contender(costs.run_with_term, {"work": work, "further": name}) for name in names}
        found.append({"task": task_name, "steps": costs.relative_costs(settings.play(plays, say))})
    return {"groups": found, "left_out": [name for name in chosen if costs.task_of(name) is None]}


def scaling(settings: BenchmarkSettings, say: Say) -> dict[str, Any]:
    """How a step's cost grows with length, batch and depth."""
    size = SIZES[settings.size]
    axes = {
        "length": {n: settings.work(length=n) for n in (128, 256, 512)},
        "batch": {n: settings.work(batch=n) for n in (2, 4, 8, 16)},
        "depth": {n: settings.work(size=dataclasses.replace(size, layers=n)) for n in (4, 8, 12, 24)},
    }
    found: dict[str, Any] = {}
    for axis, points in axes.items():
        for value, work in points.items():
            say(f"{axis} {value}")
            plays = {REFERENCE: Contender(reference.run_distilbert_loop, {"work": work}, keeps_memory=False)}
            plays[MASKED] = Contender(ours.run_trainer, {"work": work})
            scores = settings.play(plays, say, rounds=max(settings.rounds // 2, 1))
            found.setdefault(axis, {})[value] = _told(scores, REFERENCE)
    return found


def inference_speed(settings: BenchmarkSettings, say: Say) -> dict[str, Any]:
    """Teacher and student in use, one input at a time and 32."""
    found = {}
    for batch in (1, 32):
        work = settings.work(batch=batch)
        plays = {
            f"{role}{', compiled' if compiled else ''}": Contender(
                inference.run_inference,
                {"work": work, "role": role, "compiled": compiled},
                tells_memory=not compiled or settings.device != "cpu",
            )
            for role in ("teacher", "student")
            for compiled in (False, True)
        }
        found[str(batch)] = _told(settings.play(plays, say, rounds=4 * settings.rounds), "teacher")
    return found


def communication_time(settings: BenchmarkSettings, say: Say) -> dict[str, Any]:
    """What the processes of a step tell each other, and how long that takes; started by torchrun."""
    return communication.measure_communication(settings.work(), settings.rounds, settings.warm_up)


PARTS: dict[str, Callable[[BenchmarkSettings, Say], dict[str, Any]]] = {
    "mlm": mlm,
    "options": options,
    "attention": attention,
    "task": task_stage,
    "terms": terms,
    "scaling": scaling,
    "inference": inference_speed,
    "communication": communication_time,
}


def _told(scores: Mapping[str, ContenderResult], base: str) -> dict[str, Any]:
    """Scores, with how many times as fast each is as the one named."""
    than = scores[base].median
    told = {name: score.to_dict() for name, score in scores.items()}
    for name, score in scores.items():
        if than and score.median:
            told[name]["speed_up"] = round(than / score.median, 3)
    return told


def _utilisation(
    scores: Mapping[str, ContenderResult], rates: Mapping[str, float], flops: Mapping[str, float]
) -> dict[str, Any]:
    """Useful arithmetic in a second, as a share of the best rate among the step's own products."""
    peak = max(rates.values(), default=None)
    found = {}
    for name, work in flops.items():
        if peak and scores[name].median:
            rate = work / scores[name].median / 1e9
            found[name] = {"gflop": round(work / 1e9, 1), "gflops": round(rate, 1), "share": round(rate / peak, 3)}
    return {"peak_gflops": peak, "utilisation": found}
