"""The `results.json` of a run of three seeds, for tests of reports and cards. The figures are made up."""

import copy
from typing import Any

_SIZE = {
    "size_mb": 90.85,
    "parameters": 22_713_986,
    "encoder_parameters": 10_646_784,
    "embedding_parameters": 11_918_592,
}
_SMALL = {
    "size_mb": 69.56,
    "parameters": 17_390_594,
    "encoder_parameters": 5_323_392,
    "embedding_parameters": 11_918_592,
}


def _seeds(*values: float) -> dict[str, Any]:
    ordered = sorted(values)
    summary = {"median": ordered[len(ordered) // 2], "minimum": ordered[0], "maximum": ordered[-1]}
    return {"seeds": [42, 1, 2][: len(values)], "values": list(values), **summary}


def _gain(mean: float, low: float, high: float) -> dict[str, Any]:
    interval = {"metric": "f1", "mean": mean, "low": low, "high": high, "level": 0.95}
    return {**interval, "resamples": 1000, "rows": 408, "seeds": 3, "outside_noise": low > 0 or high < 0}


def _between(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high}


def _setting(batch_size: int, lengths: str, threads: int, teacher: float, student: float) -> dict[str, Any]:
    tokens, both = (53.2 if lengths == "data" else 128.0), {"teacher": teacher, "student": student}
    models = {
        name: {"p50": median, "p90": median * 1.2, "p99": median * 1.4, "rows_per_second": batch_size * 1e3 / median,
               "forwards": 96, "jitter": 1.1}
        for name, median in both.items()
    }  # fmt: skip
    return {"batch_size": batch_size, "lengths": lengths, "tokens": tokens, "threads": threads, "models": models}


_LATENCY = [
    _setting(size, lengths, threads, 10.0 * size**0.9 * slower, 5.3 * size**0.9 * slower)
    for lengths, threads, slower in (("data", 2, 1), ("max_length", 2, 2), ("data", 1, 1.8), ("max_length", 1, 3.6))
    for size in (1, 8, 32)
]


def _score(mean: float, seeds: int) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.04, "high": mean + 0.04, "level": 0.95, "rows": 408, "seeds": seeds}


_HISTORY = [
    {"step": step, "loss": 2 / step**0.3, "soft_target_kl": 0.6 / step**0.4, "hard_label": 0.7 / step**0.2,
     "hidden_cosine": 0.4 / step**0.3, "attention_kl": 0.5 / step**0.3, "soft_target_kl_weight": 1 - step / 920}
    for step in range(20, 461, 20)
]  # fmt: skip

_RESULTS: dict[str, Any] = {
    "schema_version": 2,
    "recipe": {
        "teacher": {"name": "google-bert/bert-base-uncased", "revision": None, "finetune": {"num_train_epochs": 3}},
        "student": {"name": None, "layers": "every_other", "architecture": "same", "num_layers": None},
        "data": {"path": "nyu-mll/glue", "name": None, "task": "mrpc", "max_length": 128},
        "objective": {
            "soft_target_kl": {"weight": 1.0, "temperature": 2.0,
                               "schedule": {"weight": {"shape": "linear", "end": 0.5}, "temperature": None}},
            "hard_label": {"weight": 1.0},
            "hidden_cosine": {"weight": 1.0, "layers": "uniform"},
            "attention_kl": {"weight": 1.0, "layers": "uniform"},
        },
        "training": {"num_train_epochs": 4, "learning_rate": 1e-4, "per_device_train_batch_size": 32},
        "evaluation": {"batch_size": 32, "seeds": [42, 1, 2], "baselines": ["no_distillation", "copied_only"]},
        "hub": {"push": False, "repo_id": None, "private": False},
        "run": {"overwrite": False},
    },
    "environment": {
        "versions": {"python": "3.11.9", "distil-nlp": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "device": "x86_64 CPU, 2 cores", "threads": 2, "processes": 1, "commit": "0123abc", "seed": 42,
    },
    "task": "mrpc",
    "headline": "f1",
    "labels": ["not_equivalent", "equivalent"],
    "rows": {"train": 3668, "labelled": 3668, "evaluation": {"validation": 408}},
    "teacher": {"name": "google-bert/bert-base-uncased", **_SIZE, "metrics": {"accuracy": 0.765, "f1": 0.842},
                "flops_per_token": 2e7, "peak_memory_mib": 190.5},
    "student": {**_SMALL, "metrics": {"accuracy": 0.75, "f1": 0.837}, "flops_per_token": 1.06e7,
                "peak_memory_mib": 170.5,
                "initialisation": {"teacher_layers": [1, 3, 5], "copied": 50, "new": []}},
    "seeds": {"f1": _seeds(0.837, 0.835, 0.839), "accuracy": _seeds(0.75, 0.75, 0.757)},
    "baselines": {
        "majority": {"metrics": {"accuracy": 0.684, "f1": 0.812}},
        "copied_only": {"metrics": {"accuracy": 0.696, "f1": 0.817}, "gain": _gain(0.02, 0.004, 0.036)},
        "no_distillation": {"metrics": {"accuracy": 0.664, "f1": 0.754},
                            "seeds": {"f1": _seeds(0.754, 0.769, 0.757), "accuracy": _seeds(0.664, 0.679, 0.664)},
                            "gain": _gain(0.077, 0.046, 0.108)},
    },
    "intervals": {"teacher": _score(0.842, 1), "student": _score(0.837, 3), "copied_only": _score(0.817, 1),
                  "no_distillation": _score(0.757, 3)},
    "calibration": {
        "teacher": {"ece": 0.052, "nll": 0.51, "difference": {"ece": _between(0.012, -0.01, 0.035),
                                                               "nll": _between(0.03, 0.01, 0.052)}},
        "student": {"ece": 0.064, "nll": 0.54},
        "copied_only": {"ece": 0.152, "nll": 0.63},
        "no_distillation": {"ece": 0.121, "nll": 0.66, "difference": {"ece": _between(-0.057, -0.083, -0.031),
                                                                       "nll": _between(-0.12, -0.17, -0.07)}},
    },
    "breakdown": {
        "lengths": [{"shortest": 21, "longest": 42, "rows": 104, "teacher": 0.21, "student": 0.23},
                    {"shortest": 43, "longest": 51, "rows": 101, "teacher": 0.24, "student": 0.24}],
        "changes": {"both_right": 294, "lost": 18, "won": 12, "both_wrong": 84},
        "classes": [
            {"name": "not_equivalent", "rows": 129, "teacher": {"precision": 0.69, "recall": 0.465, "f1": 0.556},
             "student": {"precision": 0.663, "recall": 0.426, "f1": 0.519}},
            {"name": "equivalent", "rows": 279, "teacher": {"precision": 0.785, "recall": 0.903, "f1": 0.84},
             "student": {"precision": 0.772, "recall": 0.9, "f1": 0.831}},
        ],
    },
    "retention": 0.994,
    "retention_above_majority": 0.833,
    "fidelity": {
        "rows": 408, "agreement": 0.941, "kl": 0.031, "ece": {"teacher": 0.052, "student": 0.064},
        "nll": {"teacher": 0.51, "student": 0.54},
        "confusion": {"teacher": [[60, 69], [27, 252]], "student": [[55, 74], [28, 251]]},
        "cka": {"teacher_layers": ["embeddings", 0, 1, 2, 3, 4, 5], "student_layers": ["embeddings", 0, 1, 2],
                "values": [[round(max(0.05, 1 - abs(2 * s - t) / 7), 3) for t in range(7)] for s in range(4)],
                "tokens": 2048},
    },
    "efficiency": {"device": "x86_64 CPU, 2 cores", "dtype": "float32", "max_length": 128, "warm_up": 2,
                   "seconds": 58.3, "latency": _LATENCY, "left_out": 0},
    "training": {"seconds": 412.3, "steps": 460, "tokens": 401_234, "tokens_per_second": 973.1, "resumed_from": None,
                 "peak_memory_mib": 1500.0, "best_checkpoint": None,
                 "final_terms": {"soft_target_kl": 0.02, "hard_label": 0.2}, "history": _HISTORY},
}  # fmt: skip


PREDICTIONS = {
    "split": ["validation"] * 30 + ["test"] * 2,
    "row": [*range(30), 0, 1],
    "text": [f"first text {i}" for i in range(32)],
    "text_pair": [f"second text {i} {'and on ' * (60 * (i == 3))}" for i in range(32)],
    "tokens": [20 + i for i in range(32)],
    "label": ["equivalent"] * 32,
    "teacher": ["equivalent" if i % 4 else "not_equivalent" for i in range(32)],
    "student": ["equivalent" if i % 2 == 0 else "not_equivalent" for i in range(32)],
    "teacher_probability": [0.9] * 32,
    "student_probability": [0.5 + i / 100 for i in range(32)],
    "teacher_error": [0.0 if i % 4 else 1.0 for i in range(32)],
    "student_error": [i % 2 * 1.0 for i in range(32)],
}
"""Columns of `predictions.parquet`: the student loses the 15 odd rows, and wins the 8 that are multiples of 4."""


def example(**changes: Any) -> dict[str, Any]:
    """Return a copy of the example with top-level keys replaced by `changes`; a key set to None is left out."""
    results = {**copy.deepcopy(_RESULTS), **changes}
    return {key: value for key, value in results.items() if value is not None}


def exits() -> dict[str, Any]:
    """Return the block `exits` of the example, of a student with exits after 1 and 2 layers, and its efficiency."""
    depths = {1: (0.779, 12_600_000), 2: (0.818, 15_600_000)}
    found = [
        {"layers": layers, "folder": f"exits/{layers}-layers", "parameters": parameters, "size_mb": parameters * 4e-6,
         "metrics": {"f1": f1}, "seeds": {"f1": _seeds(f1, f1 + 0.01, f1 - 0.004)}}
        for layers, (f1, parameters) in depths.items()
    ]  # fmt: skip
    latency = copy.deepcopy(_LATENCY)
    for setting in latency:
        student = setting["models"]["student"]
        for layers in depths:
            setting["models"][f"exit_{layers}"] = student | {"p50": student["p50"] * (0.3 + 0.2 * layers)}
    return {"exits": found, "efficiency": {"latency": latency}}


def exported(kept: float = 0.998) -> dict[str, Any]:
    """Return the block `export` of the example, with an int8 copy that keeps this share of the ONNX model's score."""
    sizes, speeds = {"teacher": 90.85, "student": 69.56, "onnx": 69.8, "int8": 18.1}, (20.0, 10.6, 9.4, 4.1)
    scores = {"teacher": 0.842, "student": 0.837, "onnx": 0.837, "int8": 0.837 * kept}
    models: dict[str, Any] = {
        name: {"size_mb": size, "metrics": {"accuracy": 0.75, "f1": scores[name]}} for name, size in sizes.items()
    }
    for name, agreement in (("student", None), ("onnx", 1.0), ("int8", 0.985)):
        models[name]["retention"] = scores[name] / 0.842
        if agreement is not None:
            models[name]["fidelity"] = {"agreement": agreement, "kl": 0.001}
            models[name] |= {"file": f"onnx/model{'_quantized' * (name == 'int8')}.onnx", "sha256": "ab" * 32}
    latency = []
    for threads, size in ((1, 1), (1, 32), (2, 1), (2, 32)):
        entry = _setting(size, "data", threads, 1, 1)
        one = entry["models"].pop("teacher")
        times = {name: ms * size**0.9 / threads**0.5 for name, ms in zip(sizes, speeds, strict=True)}
        entry["models"] = {
            name: one | {"p50": ms, "p90": 1.2 * ms, "p99": 1.4 * ms, "rows_per_second": size * 1e3 / ms}
            for name, ms in times.items()
        }
        latency.append(entry)
    return {
        "settings": {"onnx": False, "int8": "dynamic", "int8_layers": "all", "reduce_range": None,
                     "calibration_rows": 64, "gate": 0.99, "latency": "full"},
        "versions": {"onnx": "1.23.2", "onnxscript": "0.7.2", "onnxruntime": "1.32.0", "torch": "2.13.0",
                     "transformers": "5.23.0"},
        "exporter": "transformers", "inputs": ["input_ids", "attention_mask", "token_type_ids"], "outputs": ["logits"],
        "difference": 3e-7,
        "int8": {"method": "dynamic", "layers": "all", "reduce_range": False, "calibration_rows": None},
        "gate": {"threshold": 0.99, "kept": kept, "passed": kept >= 0.99},
        "models": models,
        "efficiency": {**_RESULTS["efficiency"], "latency": latency},
    }  # fmt: skip
