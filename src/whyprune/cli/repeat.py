"""The command that repeats a run, for its record."""

import shlex

import typer

# They say how a run is started or shown, not what it computes.
LEFT_OUT = ("config", "resume", "overwrite", "as_json", "quiet", "help")


def command_of(ctx: typer.Context) -> str:
    """The command with every value that is not a default, wherever it came from."""
    words = ["whyprune", ctx.command.name or ""]
    for parameter in ctx.command.params:
        name = parameter.name or ""
        value = ctx.params.get(name)
        if name in LEFT_OUT or value in (None, parameter.default, []):
            continue
        if parameter.param_type_name == "argument":
            words.insert(2, str(value))
        elif isinstance(value, bool):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            for one in value if getattr(parameter, "multiple", False) else [value]:
                text = ",".join(f"{v:g}" for v in one) if isinstance(one, list | tuple) else str(one)
                words += [parameter.opts[0], text]
    return shlex.join(words)
