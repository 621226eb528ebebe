"""Who may import whom: the one table, checked against the syntax tree."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "multifaceted"
MAY_IMPORT = {
    "records": set(),
    "record_files": {"records"},
    "preferences": set(),
    "trees": set(),
    "work": {"trees"},
    "template": {"records"},
    "mini": {"records", "preferences"},
    "objective": set(),
    "model": {"records", "record_files", "trees", "work"},
    "data": {"hub", "records", "record_files", "preferences", "trees", "work", "template", "mini"},
    "tracking": {"records"},
    "hub": set(),
    "training": {"data", "hub", "model", "objective", "records", "record_files", "tracking", "trees", "work"},
    "inference": {"model", "template", "records", "record_files"},
    "evaluation": {
        "inference",
        "data",
        "model",
        "mini",
        "preferences",
        "records",
        "record_files",
        "template",
        "tracking",
        "trees",
    },
    "synthesis": {"data", "hub", "mini", "preferences", "records", "record_files"},
    "config": {"records"},
    "tables": {"records"},
    "sweep": {"records", "record_files", "tables"},
    "dry_run": {"records", "tables", "training"},
    "logs": {"records"},
    "app": {"config", "dry_run", "logs", "records", "record_files", "tables", "training", "evaluation", "synthesis"},
}
MAY_USE = {
    "records": set(),
    "record_files": set(),
    "preferences": {"yaml"},
    "trees": {"torch", "numpy"},
    "work": set(),
    "template": {"transformers", "jinja2"},
    "mini": set(),
    "objective": {"torch"},
    "model": {"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "peft", "liger_kernel"},
    "data": {
        *("torch", "transformers", "jinja2", "numpy", "pyarrow", "datasets"),
        *("huggingface_hub", "tqdm", "matplotlib", "rensa", "rapidfuzz"),
    },
    "tracking": {"torch", "wandb"},
    "hub": {"huggingface_hub"},
    "training": {"torch", "transformers", "lightning", "safetensors", "torchao", "tqdm", "yaml"},
    "evaluation": {"numpy", "tqdm", "yaml", "wandb", "inspect_ai", "matplotlib"},
    "inference": {"torch", "transformers", "jinja2", "tqdm", "openai", "tenacity", "inspect_ai"},
    "synthesis": set(),
    "config": {"omegaconf", "pydantic"},
    "tables": set(),
    "sweep": {"hydra", "omegaconf"},
    "dry_run": set(),
    "logs": {"transformers"},
    "app": {"hydra", "omegaconf"},
}
"""Beside the standard library."""


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_table(path):
    room = room_of(path)
    if room == "__init__":
        return
    for module in imported(path):
        top, *rest = module.split(".")
        if top == "multifaceted":
            assert rest[0] in MAY_IMPORT[room] | {room}, f"{room} may not import {module}"
        else:
            assert top in sys.stdlib_module_names | MAY_USE[room], f"{room} may not use {top}"


def test_the_table_names_every_room():
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms == set(MAY_IMPORT) == set(MAY_USE)


def test_rules_do_not_import_the_writer():
    assert not any("responses" in m or "world" in m for m in imported(PACKAGE / "mini" / "rules.py"))
