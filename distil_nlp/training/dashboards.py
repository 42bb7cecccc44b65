"""Groups on dashboards: `terms/…` and `weights/…` beside transformers' `train/…` and `eval/…`.

transformers' own reporters put all of a training's log under `train/`, dozens of curves with the loss among them. Those
here show terms and weights in groups of their own, and leave the rest to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

if TYPE_CHECKING:
    from distil_nlp.training.term_logging import TermLogging

    _Reporter = TrainerCallback
else:
    _Reporter = object  # a mixin, of a reporter for a type checker alone

_STEP = "train/global_step"
"""What transformers draws curves over in W&B and trackio."""


class GroupedReporter(_Reporter):
    """A mixin for a reporter of transformers that shows terms and weights in groups.

    Args:
        trainer: whose `log_groups` names the groups.
    """

    def __init__(self, trainer: TermLogging):
        super().__init__()
        self._trainer = trainer

    def on_log(self, args: Any, state: Any, control: Any, *further: Any, logs: Any = None, **kwargs: Any) -> None:
        """Report what is in a group by its name there, and the rest as the reporter does."""
        groups = self._trainer.log_groups if "loss" in logs else {}
        rest = {name: value for name, value in logs.items() if name not in groups}
        super().on_log(args, state, control, *further, logs=rest, **kwargs)
        grouped = {groups[name]: value for name, value in logs.items() if name in groups}
        if grouped and state.is_world_process_zero:
            self.report(grouped, state.global_step)

    def report(self, values: Mapping[str, float], step: int) -> None:
        """Send values by their whole names."""
        raise NotImplementedError


class GroupedTensorBoard(GroupedReporter, TensorBoardCallback):
    """transformers' reporter to TensorBoard, with groups."""

    def report(self, values: Mapping[str, float], step: int) -> None:
        """Send values by their whole names."""
        for name, value in values.items():
            self.tb_writer.add_scalar(name, value, step)
        self.tb_writer.flush()


class GroupedWandb(GroupedReporter, WandbCallback):
    """transformers' reporter to W&B, with groups."""

    def report(self, values: Mapping[str, float], step: int) -> None:
        """Send values by their whole names."""
        if self._wandb is not None:
            self._wandb.log({**values, _STEP: step})


class GroupedTrackio(GroupedReporter, TrackioCallback):
    """transformers' reporter to trackio, with groups."""

    def report(self, values: Mapping[str, float], step: int) -> None:
        """Send values by their whole names."""
        self._trackio.log({**values, _STEP: step})


_GROUPED: dict[type[TrainerCallback], Any] = {
    TensorBoardCallback: GroupedTensorBoard, WandbCallback: GroupedWandb, TrackioCallback: GroupedTrackio,
}  # fmt: skip


def group_terms(trainer: TermLogging) -> None:
    """Replace a trainer's reporters that have groups by ours; others keep everything under `train/`."""
    for reporter, grouped in _GROUPED.items():
        if trainer.pop_callback(reporter) is not None:
            trainer.add_callback(grouped(trainer))
