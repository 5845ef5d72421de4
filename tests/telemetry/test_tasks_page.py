"""docs/tasks.md: its template is a valid task, and it names every shipped task and every code of the data check."""

from __future__ import annotations

import re
from pathlib import Path

from fedsite.telemetry import yaml_text
from fedsite.telemetry.errors import Code
from fedsite.telemetry.task import read_task, shipped_names

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def test_the_template_is_a_valid_task() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    task = read_task(yaml_text.parse(block, "docs/tasks.md"))
    assert task.name == "my_task"
    assert task.outputs == 3
    assert "vibration.band0.2-0.5" in task.feature_names
    assert read_task(task.document) == task


def test_every_shipped_task_is_on_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)`", PAGE, flags=re.MULTILINE)
    assert set(shipped_names()) <= set(rows)


def test_every_code_of_the_data_check_is_on_the_page() -> None:
    for code in Code:
        if code is not Code.TASK:
            assert f"`{code}`" in PAGE, code
