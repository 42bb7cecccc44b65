"""`distil-nlp launch`: run a recipe by `accelerate launch`, whose options have quiet defaults here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from distil_nlp.cli.commands import distill, evaluate_glue
from distil_nlp.cli.commands.base import Command
from distil_nlp.cli.parser import Parser
from distil_nlp.errors import UserError
from distil_nlp.recipe.shipped import shipped_file

_LAUNCHED = {command.name: command for command in (distill.COMMAND, evaluate_glue.COMMAND)}
"""Commands that several processes can share."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "distil-nlp launch [-h] [OPTION …] RECIPE [section.key=value …]"
    parser.add_argument(
        "arguments", nargs=REMAINDER, metavar="OPTION …",
        help="of accelerate launch, such as --num_processes 4 or --config_file accelerate/ddp; without, one process "
        "for each GPU, or one on all cores. Instead of a recipe: evaluate-glue and its arguments",
    )  # fmt: skip


def parse(parser: Parser, arguments: Sequence[str]) -> Namespace:
    """Return the arguments as they are: accelerate's own parser, which needs torch, tells its options from the rest."""
    if list(arguments) in (["-h"], ["--help"]):
        return parser.parse_args(arguments)
    if not arguments:
        parser.error("the following arguments are required: recipe")
    options = Namespace(arguments=list(arguments))
    if not arguments[0].startswith("-"):
        options.command, options.parsed = _parsed(arguments)
    return options


def precheck(options: Namespace) -> None:
    if "parsed" in options:
        options.command.precheck(options.parsed)


def run(options: Namespace) -> NoReturn:
    """Hand the process over to accelerate; ends with the exit code of the command.

    Raises:
        UserError: for a recipe that is not there, and processes that accelerate would not start.
    """
    from accelerate.commands.launch import launch_command_parser

    arguments = launch_command_parser().parse_args(options.arguments)
    launched = [arguments.training_script, *arguments.training_script_args]
    command, parsed = _parsed(launched)
    command.precheck(parsed)
    if launched[0] not in _LAUNCHED:
        launched.insert(0, command.name)
    arguments.module, arguments.training_script, arguments.training_script_args = True, "distil_nlp", launched
    _run_launcher(arguments)


def _parsed(launched: Sequence[str]) -> tuple[Command, Namespace]:
    """Return the command that is launched, and its options; its own parser ends the process for wrong ones."""
    command = _LAUNCHED.get(launched[0], distill.COMMAND)
    parser = _LaunchedParser(prog=f"distil-nlp launch {command.name}")
    command.add_arguments(parser)
    return command, parser.parse_intermixed_args(launched[1:] if launched[0] in _LAUNCHED else launched)


class _LaunchedParser(Parser):
    """The parser of a command that is launched."""

    def hint(self, unknown: str, args: Sequence[str]) -> str:
        if "." in unknown:
            return super().hint(unknown, args)
        return "; options of accelerate launch come before the recipe"


def _run_launcher(arguments: Namespace) -> NoReturn:
    from accelerate.commands.config.config_args import default_config_file
    from accelerate.commands.launch import launch_command
    from accelerate.utils import prepare_simple_launcher_cmd_env
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if arguments.config_file is not None and (shipped := shipped_file(arguments.config_file)):
        arguments.config_file = str(shipped)
    if arguments.config_file is None and not Path(default_config_file).is_file():
        _fill_in(arguments)
        if arguments.num_processes == arguments.num_machines == 1 and not _is_distributed(arguments):
            command, environment = prepare_simple_launcher_cmd_env(arguments)
            os.execvpe(command[0], command, environment)  # the same process: signals and exit codes are the command's
    try:
        launch_command(arguments)
    except ChildFailedError as error:
        sys.exit(_exit_code(error.get_first_failure()[1].exitcode))
    except subprocess.CalledProcessError as error:
        sys.exit(_exit_code(error.returncode))
    except SignalException as error:
        sys.exit(128 + error.sigval)
    sys.exit(0)


def _fill_in(arguments: Namespace) -> None:
    """Give the options that accelerate warns about where they are missing their values: all GPUs, or all cores.

    Raises:
        UserError: for several processes on a CPU, of which accelerate starts one.
    """
    import torch

    from distil_nlp.utils.environment import cpu_cores  # imports torch

    gpus = 0 if arguments.cpu or not torch.accelerator.is_available() else torch.accelerator.device_count()
    arguments.num_processes = arguments.num_processes or max(gpus, 1)
    arguments.num_machines = arguments.num_machines or 1
    if arguments.num_processes > 1 and not gpus:
        raise UserError(
            "--num_processes",
            "1, since there is no GPU" if not arguments.cpu else "1 beside --cpu",
            str(arguments.num_processes),
            why="accelerate would start one",
            fix=f"start with `torchrun --nproc_per_node {arguments.num_processes} -m distil_nlp distill RECIPE "
            "training.use_cpu=true`, or leave it out",
        )
    arguments.multi_gpu = arguments.multi_gpu or (arguments.num_processes > 1 and not _is_distributed(arguments))
    arguments.mixed_precision = arguments.mixed_precision or "no"
    arguments.dynamo_backend = arguments.dynamo_backend or "no"
    if arguments.num_cpu_threads_per_process is None:
        processes = max(arguments.num_processes // arguments.num_machines, 1)
        arguments.num_cpu_threads_per_process = os.environ.get("OMP_NUM_THREADS") or max(cpu_cores() // processes, 1)
    arguments.use_cpu = arguments.cpu


def _is_distributed(arguments: Namespace) -> bool:
    names = ("multi_gpu", "use_deepspeed", "use_fsdp", "use_megatron_lm", "tpu")
    return any(getattr(arguments, name) for name in names)


def _exit_code(returncode: int) -> int:
    """Return the code as a shell gives it; a process that was ended by a signal has a negative one."""
    return returncode if returncode >= 0 else 128 + signal.Signals(-returncode)


COMMAND = Command(
    name="launch",
    summary="distil on all GPUs: accelerate launch with quiet defaults",
    description="Run a recipe by `accelerate launch`: on all GPUs, or all CPU cores, unless options say otherwise.",
    example="distil-nlp launch --num_processes 2 glue data.task=mrpc",
    add_arguments=add_arguments,
    run=run,
    parse=parse,
    precheck=precheck,
    uses_torch=False,
)
