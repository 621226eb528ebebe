"""The boundary between Hydra and the code: a composed config goes in, typed objects come out.

A node's `_target_` names a component's class. The class is imported after composition, the node is checked
against its dataclass fields key by key, and the object is returned; no `DictConfig` lives past `build`. This is
the only module that uses OmegaConf.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from multifaceted.records import WITHOUT_MEANING

T = TypeVar("T")

TARGET = "_target_"
TRUSTED = ("multifaceted", "lightning")
"""Packages that a `_target_` may name without the user's say (`trust=[...]`)."""

EVALUATE_AFTER = "evaluate_after"
"""The key by which the root app joins `train.py` to `eval.py`; like `trust`, it belongs to no component."""

SWITCHES = ("plan",)
"""Nodes with a field `enabled` that their own name switches: `plan=true` beside `plan.device=h200`."""

TASK_FILES = {"bench": "task.bench", "prompts": "task.prompts_file", "pairs": "data@task.data"}
"""What a task reads, by its short name on the command line."""

_NODE = "_multifaceted_node"
"""Attribute of a third-party component that keeps the node it was built from, for `to_plain`."""


class ConfigError(ValueError):
    """A config that cannot be built; the message names the key, the value and what is allowed."""


def prepare_overrides(arguments: Sequence[str]) -> list[str]:
    """Let `a.b=c` set a key that no YAML spells out because it has a default in the code.

    Hydra would ask for `++a.b=c`. Whether such a key exists is decided by `build`, for every spelling alike.

    >>> prepare_overrides(["plan=true", "plan.device=h200", "seed=1"])
    ['++plan.enabled=true', '++plan.device=h200', 'seed=1']
    >>> prepare_overrides(["task=rubric", "bench=bench.parquet"])
    ['task=rubric', '++task.bench=bench.parquet']
    """
    names = re.compile(rf"^({'|'.join(TASK_FILES)})(?==)")
    switch = re.compile(rf"^({'|'.join(SWITCHES)})=(?=(true|false)$)", re.IGNORECASE)
    nested_value = re.compile(r"^(?!hydra\b)[A-Za-z_]\w*(\.\w+)+=")
    named = [names.sub(lambda found: TASK_FILES[found[0]], argument) for argument in arguments]
    spelled = [switch.sub(r"\1.enabled=", argument) for argument in named]
    return [f"++{argument}" if nested_value.match(argument) else argument for argument in spelled]


def run_name(overrides: Sequence[str]) -> str:
    """The name of a run's folder: its experiment and its other overrides, sorted, never a clock.

    Where a run is kept, how it is tracked and what it runs on does not change what it is.

    >>> run_name(["seed=1", "+experiment=orpo", "++batch.examples=8"])
    'orpo_batch.examples-8_seed-1'
    """
    values = dict(override.lstrip("+~").split("=", 1) for override in overrides if "=" in override)
    values |= {override: "" for override in overrides if "=" not in override}
    meaningless = (*WITHOUT_MEANING, EVALUATE_AFTER)
    values = {k: v for k, v in values.items() if not any(k == m or k.startswith(f"{m}.") for m in meaningless)}
    experiment = values.pop("experiment", "train")
    plain = [f"{key}-{value}" for key, value in sorted(values.items())]
    name = "_".join([experiment.replace("/", "-"), *plain])
    readable = re.sub(r"[^\w.+-]+", "-", name)
    if readable == name and len(name) <= 100:
        return name
    return f"{readable[:80].rstrip('-_')}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def job_name(leading: str, overrides: Sequence[str]) -> str:
    """The name of a job's folder in a study: the value of the key that the study is about, then other overrides.

    >>> job_name("mix", ["+experiment=mix_sweep", "mix=style", "seed=1"])
    'style_seed-1'
    """
    values = [override.split("=", 1)[1] for override in overrides if override.startswith(f"{leading}=")]
    others = [o for o in overrides if not o.lstrip("+").startswith((f"{leading}=", "experiment="))]
    rest = run_name(["experiment=", *others]).lstrip("_")
    return "_".join(part for part in (*values, rest) if part)


OmegaConf.register_new_resolver("run_name", lambda overrides: run_name(list(overrides)), replace=True)
OmegaConf.register_new_resolver("job_name", lambda key, overrides: job_name(key, list(overrides)), replace=True)


def build(node: DictConfig | Mapping[str, Any], expected: type[T]) -> T:
    """Turn a composed config into `expected`, a dataclass, with all that hangs below it.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, a missing value, a class that may not be used.
    """
    try:
        config = node if isinstance(node, DictConfig) else OmegaConf.create(dict(node))
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key, first_line = error.full_key or "config", str(error).splitlines()[0]
        if isinstance(error, MissingMandatoryValue):
            raise ConfigError(f"{key} has no default here; set {key}=...") from error
        raise ConfigError(f"{key}: {first_line}") from error
    plain = typing.cast(dict[str, Any], container)
    trusted = (*TRUSTED, *plain.pop("trust", ()))
    plain.pop(EVALUATE_AFTER, None)
    return typing.cast(T, _build_dataclass(plain, expected, "", trusted))


def to_plain(value: Any) -> Any:
    """The inverse of `build`: plain data with every default filled in, ready for `config.yaml`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        target = f"{type(value).__module__}.{type(value).__qualname__}"
        fields = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {TARGET: target, **fields}
    if hasattr(value, _NODE):
        return to_plain(getattr(value, _NODE))
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def import_target(name: str, key: str, trusted: Sequence[str]) -> Any:
    """Import the class that a `_target_` names.

    Raises:
        ConfigError: its package is not trusted, or there is no such class.
    """
    module, _, attribute = name.rpartition(".")
    if module.split(".")[0] not in trusted:
        raise ConfigError(
            f"{key}.{TARGET}: {name!r} is outside the trusted packages ({', '.join(trusted)});"
            f" allow it by name with trust=[{module.split('.')[0]}]"
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}.{TARGET}: cannot import {name!r}: {error}") from error


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _build_dataclass(node: Mapping[str, Any], cls: Any, path: str, trusted: Sequence[str]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    for key in node:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {_join(path, close[0])!r}?" if close else ""
            allowed = ", ".join(sorted(fields))
            raise ConfigError(f"unknown key {_join(path, key)!r} (value {node[key]!r}){hint} Allowed here: {allowed}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in node:
            raise ConfigError(f"{_join(path, name)} is required and has no value")
    values = {key: _convert(value, hints[key], _join(path, key), trusted) for key, value in node.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{path or 'config'}: {error}") from error


def _convert(value: Any, hint: Any, path: str, trusted: Sequence[str]) -> Any:
    """Convert plain data to the type that a field declares."""
    if isinstance(value, Mapping) and TARGET in value:
        return _instantiate(value, hint, path, trusted)
    options = _options(hint)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return _build_dataclass(value, option, path, trusted)
    if isinstance(value, Mapping) and any(isinstance(item, Mapping) and TARGET in item for item in value.values()):
        of_items = (*typing.get_args(hint), Any, Any)[1]
        return {key: _convert(item, of_items, _join(path, key), trusted) for key, item in value.items()}
    if isinstance(value, bool) and bool not in options and Any not in options and not _is_container(hint):
        raise ConfigError(f"{path}: {value!r} is a boolean; expected {_name(hint)}")
    try:
        adapter = pydantic.TypeAdapter(hint, config=pydantic.ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise ConfigError(f"{path}: {value!r} does not fit {_name(hint)} ({problem})") from error


def _instantiate(node: Mapping[str, Any], hint: Any, path: str, trusted: Sequence[str]) -> Any:
    cls = import_target(node[TARGET], path, trusted)
    arguments = {key: value for key, value in node.items() if key != TARGET}
    if dataclasses.is_dataclass(cls):
        component = _build_dataclass(arguments, cls, path, trusted)
    else:
        try:
            inspect.signature(cls).bind(**arguments)
            component = cls(**arguments)
            setattr(component, _NODE, dict(node))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}: {node[TARGET]} refused its arguments: {error}") from error
    options = _options(hint)
    if all(isinstance(option, type) for option in options) and not isinstance(component, options):
        raise ConfigError(
            f"{path}.{TARGET}: {node[TARGET]} is not a {' or '.join(option.__name__ for option in options)}"
        )
    return component


def _options(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the only one."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _is_container(hint: Any) -> bool:
    return typing.get_origin(hint) in (list, tuple, dict)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")
