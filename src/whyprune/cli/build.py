"""Command-line options built from the configurations they fill, so that nothing about a field is written twice.

A command's parameter that is annotated `Annotated[SomeConfiguration, Options(...)]` stands for one option per field;
the command gets the filled configuration.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from rich.markup import escape

from whyprune.cli.kinds import kind_of
from whyprune.cli.texts import one_of
from whyprune.errors import InputError
from whyprune.fields import MISSING, About, fields_of, ranged

FEW = 8
"""So many choices are listed in an option's help; of longer lists the help says where they stand."""


@dataclass(frozen=True)
class Options:
    """How a configuration becomes options.

    Attributes:
        panel: where `--help` shows them.
        panels: field -> another panel.
        names: field -> another name of its option.
        prefix: of all other names.
        only: these fields alone; empty for all.
        without: fields that are no options.
        switch: a field with a number above 0; its option is 0 by default, and then there is no configuration.
        shared: fields that take the value of another configuration's option of their own name.
    """

    panel: str
    panels: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    only: Collection[str] = ()
    without: Collection[str] = ()
    switch: str | None = None
    shared: Collection[str] = ()


@dataclass(frozen=True)
class Built:
    """A configuration and its options: option -> field."""

    configuration: type
    options: Options
    made: dict[str, About]
    read: dict[str, About]

    @property
    def switch(self) -> str | None:
        """The option that says whether there is such a configuration."""
        return next((name for name, about in self.made.items() if about.name == self.options.switch), None)

    def filled(self, values: Mapping[str, Any], given: Collection[str]) -> Any:
        """The configuration from the options' values; None where its switch is off.

        Fields whose options are not among those given have their own defaults: so it can tell which were asked for.
        """
        if self.switch is not None and not values[self.switch]:
            return None
        asked = {name: about for name, about in self.read.items() if name in given or about.default is MISSING}
        return self.configuration(**{about.name: _read(name, about, values[name]) for name, about in asked.items()})

    def parameters(self, *, elsewhere: bool) -> list[inspect.Parameter]:
        """One keyword parameter per option: of the configuration's own panel, or of the others."""
        chosen = {name: about for name, about in self.made.items() if (about.name in self.options.panels) == elsewhere}
        return [self._parameter(name, about) for name, about in chosen.items()]

    def _parameter(self, name: str, about: About) -> inspect.Parameter:
        panel = self.options.panels.get(about.name, self.options.panel)
        if name == self.switch:
            about = About(about.name, int, 0, f"{about.words.rstrip('.')}; 0 for none.", None, {"ge": 0})
        kind = kind_of(about.kind)
        default = inspect.Parameter.empty if about.default is MISSING else kind.shown(about.default)
        hint = kind.hint | None if default is None else kind.hint
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, option_for(about, panel)]
        )


def option_of(configuration: type, name: str, panel: str) -> Any:
    """The option for one field, for commands that take only that."""
    return option_for(next(about for about in fields_of(configuration) if about.name == name), panel)


def option_for(about: About, panel: str) -> Any:
    """What typer is told of a field: help, range, choices."""
    kind, more = kind_of(about.kind), dict[str, Any]()
    words = about.words[:1].upper() + about.words[1:]
    metavar = kind.metavar
    if about.choices is not None:
        names = tuple(about.choices.names)
        words = f"{words} One of {', '.join(names)}." if len(names) <= FEW else words
        more["callback"] = one_of(names)
    elif kind.hint is int and set(about.rules) <= {"ge", "le"}:
        more = {{"ge": "min", "le": "max"}[rule]: limit for rule, limit in about.rules.items()}
    elif about.rules:
        metavar = f"{metavar} [{ranged(about.rules)}]"
    shown = kind.hint is not bool and about.default is not MISSING and kind.shown(about.default) is not None
    return typer.Option(
        help=escape(f"{words} {kind.note}".rstrip()), metavar=metavar, rich_help_panel=panel, show_default=shown, **more
    )


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command of configurations as a command of their fields, for typer."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: built for name, hint in hints.items() if (built := _built(hint)) is not None}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        plain = parameter.replace(annotation=hints[name])
        parameters += groups[name].parameters(elsewhere=False) if name in groups else [plain]
    # Panels come in the order of their first options: those of another panel wait until it has begun.
    parameters += [parameter for built in groups.values() for parameter in built.parameters(elsewhere=True)]
    made = {name for built in groups.values() for name in built.made}

    @wraps(command)
    def whole(**values: Any) -> None:
        _check_of_use(values["ctx"], groups.values(), values)
        filled = {name: built.filled(values, _given(values["ctx"], values)) for name, built in groups.items()}
        command(**{name: value for name, value in values.items() if name not in made}, **filled)

    whole.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    whole.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return whole


def _built(hint: Any) -> Built | None:
    """What stands behind a parameter; None for one that is an option by itself."""
    configuration, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    options = next((mark for mark in marks if isinstance(mark, Options)), None)
    if options is None:
        return None
    configuration = next((part for part in get_args(configuration) if part is not type(None)), configuration)
    every = [about for about in fields_of(configuration) if about.name not in options.without]
    made = {
        options.names.get(about.name, options.prefix + about.name): about
        for about in every
        if not options.only or about.name in options.only
    }
    return Built(configuration, options, made, made | {a.name: a for a in every if a.name in options.shared})


def _check_of_use(ctx: typer.Context, groups: Collection[Built], values: Mapping[str, Any]) -> None:
    """Refuses options of which nothing comes, because what they configure is switched off."""
    useful = {name for built in groups for name in built.read if built.switch is None or values[built.switch]}
    for built in groups:
        for name in _given(ctx, built.made.keys() - useful - {built.switch}):
            raise InputError(f"{_flag(name)} does nothing without {_flag(str(built.switch))}: give both or neither")


def _given(ctx: typer.Context, names: Collection[str]) -> set[str]:
    """The options that were given, on the command line or in a file."""
    sources = {name: ctx.get_parameter_source(name) for name in names}
    return {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}


def _read(name: str, about: About, value: Any) -> Any:
    return about.default if value is None else kind_of(about.kind).read(_flag(name), value)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
