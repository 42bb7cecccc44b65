"""Advice on what to do next: rules on the results, the most pressing first."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distil_nlp.recipe import dump_yaml
from distil_nlp.redaction import abbreviate_home
from distil_nlp.reporting.formatting import decimal, percent, plural
from distil_nlp.reporting.scores import (
    LABELS_ONLY,
    has_taught_itself,
    headline_score,
    is_within_noise,
    its_teacher,
    learned_from_answers,
    majority_name,
    teacher_below_labels_only,
    teacher_word,
)
from distil_nlp.reporting.sentences import last_layer_cka
from distil_nlp.reporting.verdicts import (
    ABOVE_MAJORITY,
    ENOUGH,
    floor_score,
    is_above_floor,
    is_ahead_of_untrained,
    stop_verdict,
)
from distil_nlp.results import RunResults
from distil_nlp.tasks.class_order import better_order

NEARLY_ALL, LOW_CKA, WORSE_ECE = 0.99, 0.8, 0.02
"""Retention above the first: a smaller student may do; a CKA below the second and an ECE that is higher than the
teacher's by the third call for more weight."""
_MOST, _LEAST = 3, 3
"""Most rules that are shown, and fewest pieces of advice."""
_ADDING = ("evaluation.seeds", "evaluation.baselines")
"""Settings that can be added to a finished run, which then trains the missing students only."""
_EPOCHS = 3
"""The default of `TrainingArguments`."""


@dataclass(frozen=True)
class Advice:
    """A sentence, and a command or code to type."""

    text: str
    code: str = ""
    language: str = "sh"


def advice(run: RunResults) -> list[Advice]:
    """Return at most three rules that apply, then the ways to use, share or compare the student.

    A student that is no better than a guess is neither to be used nor shared: there only its remedies are told.
    """
    if stop_verdict(run):
        return [*_advised(run, (_other_classes, _weak_teacher, _untrained)), _compare(run)]
    rules = (
        _other_classes, _weak_teacher, _outdone_teacher, _untrained, _no_labels_only, _few_seeds, _no_gain,
        _low_retention, _smaller_student, _last_layer, _calibration,
    )  # fmt: skip
    hints = _advised(run, rules)
    last = [_load(run), *([] if run.get("recipe.hub.push") else [_push(run)])]
    if len(hints) + len(last) < _LEAST:
        last.append(_compare(run))
    return hints + last


def _advised(run: RunResults, rules: Sequence[Callable[[RunResults], _Hint]]) -> list[Advice]:
    """Return the advice of the first rules that apply, of those with one command the first."""
    advised: dict[str, Advice] = {}
    for text, *overrides in filter(None, (rule(run) for rule in rules)):
        command = _command(run, *overrides)
        advised.setdefault(command, Advice(text, command))
    return list(advised.values())[:_MOST]


def _command(run: RunResults, *overrides: str) -> str:
    """Return the command that adds students to the run, or runs the recipe with changes in a folder beside it."""
    folder = _path(run)
    adds = all(override.startswith(_ADDING) for override in overrides)
    output = folder if adds else folder.with_name(f"{folder.name}-next")
    parts = [f"training.output_dir={output.as_posix()}", *filter(None, overrides)]
    recipe = shlex.quote((folder / "recipe.yaml").as_posix())
    return f"distil-nlp distill {recipe} \\\n{' '.join(map(shlex.quote, parts))}"


_Hint = tuple[str, ...] | None
"""A sentence and the overrides that act on it; None if a rule does not apply."""


def _other_classes(run: RunResults) -> _Hint:
    order, own = _order_of_classes(run), run.get("teacher.classes.names")
    if order is None:
        return None
    text = "The teacher’s classes seem to be in another order than was taken: in it more predictions are right."
    names = run.get("labels") or [str(i) for i in range(len(order))]
    if not own or sorted(own) != sorted(names):
        return text, ""
    found = [names[order.index(names.index(name))] for name in own]
    return text, f"data.label_names={dump_yaml(found).strip()}"


def _order_of_classes(run: RunResults) -> tuple[int, ...] | None:
    """Return for each class of the data the teacher's class that fits it, if another order fits better."""
    confusion = run.get("fidelity.confusion.teacher")
    is_given = run.get("recipe.teacher.finetune") is not None or learned_from_answers(run)
    if not confusion or is_given:  # classes are in the data's order
        return None
    return better_order(confusion, run.get("teacher.classes.told") not in ("number", "id"))


def _weak_teacher(run: RunResults) -> _Hint:
    teacher, floor = headline_score(run, "teacher"), floor_score(run)
    if has_taught_itself(run) or teacher is None or floor is None or _order_of_classes(run):
        return None
    if teacher.median > floor + ABOVE_MAJORITY:
        return None
    much = "hardly" if teacher.median > floor else "no"
    if learned_from_answers(run):
        return f"The answers are {much} better than the {majority_name(run)}: look at some, and at their classes.", ""
    text = f"The teacher is {much} better than the {majority_name(run)}: fine-tune it first, or longer."
    return text, _longer(run, "teacher.finetune")


def _outdone_teacher(run: RunResults) -> _Hint:
    scores = teacher_below_labels_only(run)
    if scores is None:
        return None
    text = f"The {teacher_word(run)} has less to teach than the labels ({scores})"
    if learned_from_answers(run):
        return f"{text}: take better ones, or weigh them less.", ""
    return f"{text}: fine-tune it longer, or with a higher learning rate.", _longer(run, "teacher.finetune")


def _untrained(run: RunResults) -> _Hint:
    learned = is_above_floor(run, "student") is not False and is_ahead_of_untrained(run) is not False
    if learned or is_above_floor(run, "teacher") is False:
        return None
    text = "The student has learned nothing yet: train longer, on more rows, or with another learning rate."
    return text, _longer(run)


def _no_labels_only(run: RunResults) -> _Hint:
    if run.get(LABELS_ONLY) or not run.kind.learns_labels:
        return None
    text = "Measure the gain of distillation: train the same student on labels only as well."
    return text, "evaluation.baselines=[no_distillation]"


def _few_seeds(run: RunResults) -> _Hint:
    score = headline_score(run, "student")
    if score is None or len(score.values) > 2:
        return None
    few = "one seed was" if len(score.values) == 1 else "two seeds were"
    return (
        f"Only {few} run, so the variation over seeds is hardly known: train five students and read the median.",
        "evaluation.seeds=5",
    )


def _no_gain(run: RunResults) -> _Hint:
    gain = run.get(f"{LABELS_ONLY}.gain")
    if is_within_noise(gain) is None or gain["low"] > 0:
        return None
    if not is_within_noise(gain):
        text = "Distillation costs quality here: give the labels more weight against the teacher."
        return text, _doubled(run, "hard_label")
    text = "The gain of distillation is within the noise: train longer, or on more rows; rows without labels help too."
    return text, _longer(run)


def _low_retention(run: RunResults) -> _Hint:
    retention, above = run.get("retention"), run.get("retention_above_majority")
    if retention is None or min(retention, retention if above is None else above) >= ENOUGH:
        return None
    loss = f"Of what the {teacher_word(run)} has above the {majority_name(run)} the student keeps {percent(above)}"
    if retention < ENOUGH:
        loss = f"The student is clearly below {its_teacher(run)}"
    text = f"{loss}: train longer or on more rows (they need no labels), keep more layers, or start from a "
    text += "student that was distilled on plain text."
    return text, _longer(run)


def _smaller_student(run: RunResults) -> _Hint:
    above = run.get("retention_above_majority")
    retention = run.get("retention") if above is None else above
    depth = len(run.get("fidelity.cka.student_layers") or ()) - 1
    is_own = run.get("recipe.student.name") or run.get(
        "student.initialisation.start"
    )  # not some of the teacher's layers
    if retention is None or retention < NEARLY_ALL or depth < 2 or is_own or teacher_below_labels_only(run):
        return None
    text = f"With {plural(depth, 'layer')} the student keeps nearly all: fewer may do."
    return text, "student.layers=every_other", f"student.num_layers={depth - 1}"


def _last_layer(run: RunResults) -> _Hint:
    value = last_layer_cka(run)
    if has_taught_itself(run) or value is None or value >= LOW_CKA:
        return None
    term = "hidden_mse" if _weight(run, "hidden_mse") and not _weight(run, "hidden_cosine") else "hidden_cosine"
    text = f"The last hidden states differ from the teacher’s (CKA {decimal(value, 2)}): give them more weight."
    return text, _doubled(run, term)


def _calibration(run: RunResults) -> _Hint:
    teacher, student = run.get("fidelity.ece.teacher"), run.get("fidelity.ece.student")
    if has_taught_itself(run) or teacher is None or student is None or student <= teacher + WORSE_ECE:
        return None
    text = "The student’s confidence is further off than the teacher’s: give the soft targets more weight."
    return text, _doubled(run, "soft_target_kl")


def _weight(run: RunResults, term: str) -> float | None:
    return run.get(f"recipe.objective.{term}.weight")


def _doubled(run: RunResults, term: str) -> str:
    """Return the override that doubles a term's weight, or sets it to 1 if the term is new."""
    return f"objective.{term}.weight={2 * (_weight(run, term) or 0.5):g}"


def _longer(run: RunResults, section: str = "training") -> str:
    """Return the override that doubles the steps or epochs of a section of the recipe."""
    steps = run.get(f"recipe.{section}.max_steps") or 0
    if steps > 0:
        return f"{section}.max_steps={2 * steps}"
    return f"{section}.num_train_epochs={2 * (run.get(f'recipe.{section}.num_train_epochs') or _EPOCHS):g}"


def _load(run: RunResults) -> Advice:
    model = run.kind.auto_model
    path, imports = repr((_path(run) / "student").as_posix()), ""
    if path.startswith("'~"):
        path, imports = f"Path({path}).expanduser()", "from pathlib import Path\n\n"
    if run.kind.library == "sentence-transformers":
        return Advice(
            "Use the student: sentence-transformers loads it, and plain transformers its encoder.",
            f"{imports}from sentence_transformers import SentenceTransformer\n\n"
            f"student = SentenceTransformer({path})\nvectors = student.encode({run.kind.example_input})",
            "python",
        )
    return Advice(
        "Use the student: plain transformers loads it.",
        f"{imports}from transformers import {model}, AutoTokenizer\n\n"
        f"student = {model}.from_pretrained({path})\ntokenizer = AutoTokenizer.from_pretrained({path})",
        "python",
    )


def _push(run: RunResults) -> Advice:
    name = run.get("recipe.hub.repo_id") or "me/my-student"
    folder = shlex.quote(_path(run).as_posix())
    return Advice("Share it on the Hub.", f"distil-nlp push-to-hub {folder} --repo-id {shlex.quote(name)}")


def _compare(run: RunResults) -> Advice:
    folder = _path(run)
    others = " ".join(shlex.quote(path.as_posix()) for path in (folder, folder.parent / "another-run"))
    return Advice("Change one setting of the recipe, and compare both runs.", f"distil-nlp make-report {others}")


def _path(run: RunResults) -> Path:
    """Return the run's folder as it is typed from here, without the home folder: others may read the report."""
    folder, here = run.folder.resolve(), Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else Path(abbreviate_home(str(run.folder)))
