"""The commands by name, in the order in which they are listed. Each imports its work only when it runs."""

from distil_nlp.cli.commands import (
    benchmark,
    check,
    demo,
    distill,
    env,
    evaluate_glue,
    export,
    launch,
    make_report,
    plan,
    push_to_hub,
    recipes,
    study,
    tree,
)

COMMANDS = {
    command.name: command
    for command in (
        distill.COMMAND,
        check.COMMAND,
        plan.COMMAND,
        launch.COMMAND,
        recipes.COMMAND,
        evaluate_glue.COMMAND,
        export.COMMAND,
        demo.COMMAND,
        push_to_hub.COMMAND,
        make_report.COMMAND,
        benchmark.COMMAND,
        study.COMMAND,
        tree.COMMAND,
        env.COMMAND,
    )
}
