"""The parts of the benchmark: each compares contenders, and derives speed-ups or costs from their results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from distil_nlp.benchmark import (
    communication,
    distilbert_loop,
    inference,
    profile,
    roofline,
    task_workload,
    term_costs,
    textbrewer,
    trainer_steps,
)
from distil_nlp.benchmark.interleaved import Contender, ContenderResult, run_interleaved
from distil_nlp.benchmark.task_workload import TaskWorkload
from distil_nlp.benchmark.workload import SIZES, Workload

REFERENCE, FINETUNING, MATMUL, PROFILED = "DistilBERT’s loop", "fine-tuning", "matrix products", "profile"
MASKED = "ours, masked tokens"
ALL_TOKENS, SOME_TOKENS = "ours, all tokens", "ours, 30 % of the tokens"
Log = Callable[[str], None]
"""Writes a line of progress."""


@dataclass(frozen=True)
class BenchmarkSettings:
    """The settings of a benchmark; its fields are written to `benchmark.json`.

    Attributes:
        parts: names of `PARTS`.
        size: a name of `SIZES`.
        batch, length: rows of a step, and tokens of a row.
        rounds: steps that count, of each contender.
        warm_up: steps before those, which do not count.
        threads: of each contender's process; PyTorch's own choice if None.
        device, bf16: see `Placement`.
        model, glue: for the parts `task` and `terms`: a model with its tokenizer, and GLUE's data.
        terms: for the part `terms`: those to measure, by name; all if None.
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
        return TaskWorkload(str(self.model), str(self.glue), name, device=self.device, bf16=self.bf16)

    def run(
        self, contenders: Mapping[str, Contender], log: Log, rounds: int | None = None
    ) -> dict[str, ContenderResult]:
        options: dict[str, Any] = {"warm_up": self.warm_up, "threads": self.threads, "log": log}
        return run_interleaved(contenders, rounds=rounds or self.rounds, **options)


def mlm(settings: BenchmarkSettings, log: Log) -> dict[str, Any]:
    """Measure a language-modelling step: `DistillationTrainer` with each set of rows, and other implementations.

    The others run as their users run them, and DistilBERT's loop once more with every setting that leaves the loop
    itself as it is.
    """
    work = settings.work()
    by_default = partial(Contender, keep_freed_memory=False)
    ours = {
        ALL_TOKENS: Contender(trainer_steps.run_trainer, {"work": work, "rows": "all"}),
        SOME_TOKENS: Contender(trainer_steps.run_trainer, {"work": work, "rows": 0.3}),
        MASKED: Contender(trainer_steps.run_trainer, {"work": work}),
    }
    results = settings.run(
        {
            REFERENCE: by_default(distilbert_loop.run_distilbert_loop, {"work": work}),
            "DistilBERT’s loop, KL on masked tokens": by_default(
                distilbert_loop.run_distilbert_loop, {"work": work, "only_masked": True}
            ),
            "DistilBERT’s loop, SDPA, memory kept": Contender(
                distilbert_loop.run_distilbert_loop, {"work": work, "attention": "sdpa"}
            ),
            "TextBrewer": by_default(textbrewer.run_textbrewer, {"work": work}),
            **ours,
            **_with_triton(ours, settings),
            MATMUL: Contender(roofline.run_matmuls, {"work": work, "head_rows": work.masked}),
        },
        log,
    )
    rates = results.pop(MATMUL).extra.get("gflops", {})
    log("profiling a step")
    profiled = settings.run(
        {PROFILED: Contender(profile.run_profiled, {"work": work}, measure_memory=False)}, log, rounds=1
    )
    head_rows = {ALL_TOKENS: work.tokens, SOME_TOKENS: round(0.405 * work.tokens), MASKED: work.masked}
    flops = {name: roofline.step_flops(work, rows) for name, rows in head_rows.items()}
    return {
        "steps": _with_speed_up(results, REFERENCE),
        "tokens": work.tokens,
        "matrix_products_gflops": rates,
        "shares_of_time": profiled[PROFILED].extra.get("fractions", {}),
        **_utilisation(results, rates, flops),
    }


def _with_triton(contenders: Mapping[str, Contender], settings: BenchmarkSettings) -> dict[str, Contender]:
    """Return our contenders once more, with Triton's kernels; none on a CPU."""
    if settings.device == "cpu":
        return {}
    return {
        f"{name}, Triton": dataclasses.replace(one, arguments={**one.arguments, "kernels": "triton"})
        for name, one in contenders.items()
    }


def options(settings: BenchmarkSettings, log: Log) -> dict[str, Any]:
    """Measure the effect of keeping freed memory, on `DistillationTrainer` and DistilBERT's loop, and of compiling."""
    work = settings.work()
    contenders = {
        REFERENCE: Contender(distilbert_loop.run_distilbert_loop, {"work": work}),
        MASKED: Contender(trainer_steps.run_trainer, {"work": work}),
    }
    variants = {
        f"{name}, {label}": dataclasses.replace(contender, keep_freed_memory=keep)
        for name, contender in contenders.items()
        for label, keep in (("memory given back", False), ("memory kept", True))
    }
    variants[f"{MASKED}, memory kept, compiled"] = Contender(
        trainer_steps.run_trainer, {"work": work, "compiled": True}, measure_memory=settings.device != "cpu"
    )
    return {"steps": _with_speed_up(settings.run(variants, log), f"{REFERENCE}, memory given back")}


def attention(settings: BenchmarkSettings, log: Log) -> dict[str, Any]:
    """Measure the cost of attention maps of three layers at 512 tokens."""
    work = settings.work(batch=max(settings.batch * settings.length // 512, 1), length=512)
    depth = work.size.layers // 2
    layers = sorted({max((i + 1) * depth // 3 - 1, 0) for i in range(3)})
    pairs = [(2 * layer + 1, layer) for layer in layers]
    baseline = "without attention"
    contenders = {
        baseline: Contender(trainer_steps.run_trainer, {"work": work}),
        "attention maps of 3 layers": Contender(trainer_steps.run_trainer, {"work": work, "attention": pairs}),
    }
    results = settings.run({**contenders, **_with_triton(contenders, settings)}, log)
    whole_maps = 4 * work.batch * work.size.heads * work.length**2 / 2**20
    return {"steps": _with_speed_up(results, baseline), "one_layer_of_whole_maps_mib": round(whole_maps, 1)}


def task_stage(settings: BenchmarkSettings, log: Log) -> dict[str, Any]:
    """Measure epochs of a task, with teacher outputs computed and cached, beside plain fine-tuning."""
    tasks = {}
    for name in ("mrpc", "sst2"):
        log(f"task {name}")
        work = settings.task(name)
        cached = {"work": work, "cached": True}
        results = settings.run(
            {
                FINETUNING: Contender(task_workload.run_finetuning, {"work": work}),
                "ours, teacher asked": Contender(task_workload.run_distillation, {"work": work}),
                "ours, answers kept": Contender(task_workload.run_distillation, cached),
                "ours, answers kept, attention too": Contender(
                    task_workload.run_distillation, {**cached, "attention": True}
                ),
                "TextBrewer": Contender(task_workload.run_textbrewer_task, {"work": work}, keep_freed_memory=False),
            },
            log,
        )
        padding = round(task_workload.workload_padding(work), 4)
        tasks[name] = {"epochs": _with_speed_up(results, FINETUNING), "padding_share": padding}
    return tasks


def terms(settings: BenchmarkSettings, log: Log) -> dict[str, Any]:
    """Measure the cost of each loss term: a step with it beside the soft targets, and one without, group by group."""
    groups: list[dict[str, Any]] = []
    chosen = settings.terms or term_costs.MEASURED
    for task_name, names in term_costs.term_groups(chosen):
        log(f"terms on {task_name}: {', '.join(names)}")
        work = settings.task(task_name)
        contenders = {term_costs.SOFT_TARGETS_ONLY: Contender(term_costs.run_with_term, {"work": work})}
        contenders |= {name: Contender(term_costs.run_with_term, {"work": work, "further": name}) for name in names}
        groups.append({"task": task_name, "steps": term_costs.relative_costs(settings.run(contenders, log))})
    return {"groups": groups, "left_out": [name for name in chosen if term_costs.supported_task(name) is None]}


def scaling(settings: BenchmarkSettings, log: Log) -> dict[str, Any]:
    """Measure a step at several lengths, batch sizes and depths."""
    size = SIZES[settings.size]
    axes = {
        "length": {n: settings.work(length=n) for n in (128, 256, 512)},
        "batch": {n: settings.work(batch=n) for n in (2, 4, 8, 16)},
        "depth": {n: settings.work(size=dataclasses.replace(size, layers=n)) for n in (4, 8, 12, 24)},
    }
    measured: dict[str, Any] = {}
    for axis, points in axes.items():
        for value, work in points.items():
            log(f"{axis} {value}")
            contenders = {
                REFERENCE: Contender(distilbert_loop.run_distilbert_loop, {"work": work}, keep_freed_memory=False),
                MASKED: Contender(trainer_steps.run_trainer, {"work": work}),
            }
            results = settings.run(contenders, log, rounds=max(settings.rounds // 2, 1))
            measured.setdefault(axis, {})[value] = _with_speed_up(results, REFERENCE)
    return measured


def inference_speed(settings: BenchmarkSettings, log: Log) -> dict[str, Any]:
    """Measure inference of teacher and student, at batch sizes 1 and 32."""
    measured = {}
    for batch in (1, 32):
        work = settings.work(batch=batch)
        contenders = {
            f"{role}{', compiled' if compiled else ''}": Contender(
                inference.run_inference,
                {"work": work, "role": role, "compiled": compiled},
                measure_memory=not compiled or settings.device != "cpu",
            )
            for role in ("teacher", "student")
            for compiled in (False, True)
        }
        results = settings.run(contenders, log, rounds=4 * settings.rounds)
        measured[str(batch)] = _with_speed_up(results, "teacher")
    return measured


def communication_time(settings: BenchmarkSettings, log: Log) -> dict[str, Any]:
    """Measure the communication between processes in a step; started by torchrun."""
    return communication.measure_communication(settings.work(), settings.rounds, settings.warm_up)


PARTS: dict[str, Callable[[BenchmarkSettings, Log], dict[str, Any]]] = {
    "mlm": mlm,
    "options": options,
    "attention": attention,
    "task": task_stage,
    "terms": terms,
    "scaling": scaling,
    "inference": inference_speed,
    "communication": communication_time,
}


def _with_speed_up(results: Mapping[str, ContenderResult], baseline: str) -> dict[str, Any]:
    """Return the results as they are written, each with its speed-up over the baseline."""
    baseline_median = results[baseline].median
    written = {name: result.to_dict() for name, result in results.items()}
    for name, result in results.items():
        if baseline_median and result.median:
            written[name]["speed_up"] = round(baseline_median / result.median, 3)
    return written


def _utilisation(
    results: Mapping[str, ContenderResult], rates: Mapping[str, float], flops: Mapping[str, float]
) -> dict[str, Any]:
    """Return the useful operations per second, as a fraction of the best rate among the step's own products."""
    peak = max(rates.values(), default=None)
    utilisation = {}
    for name, operations in flops.items():
        median = results[name].median
        if peak and median:
            rate = operations / median / 1e9
            utilisation[name] = {
                "gflop": round(operations / 1e9, 1),
                "gflops": round(rate, 1),
                "share": round(rate / peak, 3),
            }
    return {"peak_gflops": peak, "utilisation": utilisation}
