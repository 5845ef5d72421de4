"""The task document: what it says, and what it refuses in which words."""

import json
import subprocess
import sys

import pytest

from fedsite.telemetry.errors import TaskError
from fedsite.telemetry.task import load_task, read_task


def test_a_document_comes_back_as_it_went(toy_document):
    task = read_task(toy_document)
    document = json.loads(json.dumps(task.document))
    assert read_task(document) == task
    assert document["window"]["gap"] == {"longest": 1, "policy": "drop"}


def test_shape_names_and_outputs(toy_task):
    task = toy_task()
    assert task.input_shape == (3, 2)
    assert task.feature_names == ("a", "b")
    assert task.feature_bounds == ((0.0, 10.0), (-1.0, 1.0))
    assert task.outputs == 1
    features = [{"kind": "mean"}, {"kind": "lag", "steps": [1, 2], "channels": ["b"]}]
    task = toy_task(features=features)
    assert task.feature_names == ("a.mean", "b.mean", "b.lag1", "b.lag2")
    assert task.input_shape == (1, 4)
    assert toy_task(loss="cross_entropy", label={"kind": "column", "column": "y", "classes": [0, 1, 2]}).outputs == 3
    assert toy_task(loss="reconstruction", label={"kind": "self", "column": None}).outputs == 2


@pytest.mark.parametrize(
    ("sections", "overlap"),
    [
        ({}, 3),
        ({"window": {"length": 5, "stride": 2}}, 3),
        ({"window": {"length": 3, "gap": {"longest": 4, "policy": "hold"}}}, 6),
        ({"window": {"length": 3, "missing": {"policy": "hold", "longest": 2}}}, 5),
        ({"label": {"kind": "horizon", "column": "y", "ahead": 6}}, 4),
        ({"label": {"kind": "horizon", "column": "y", "ahead": 6, "reduce": "any"}}, 9),
    ],
)
def test_windows_that_share_one_reading(toy_task, sections, overlap):
    assert toy_task(**sections).overlap == overlap


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"windw": {}}, r"unknown key windw; .*did you mean window\?"),
        ({"window": {"lenght": 3}}, r"unknown key window.lenght; .*did you mean length\?"),
        ({"window": {"length": "3"}}, r"window.length is '3'; allowed: a whole number"),
        ({"window": {"length": True}}, r"window.length is True; allowed: a whole number"),
        ({"window": {"length": 0}}, r"window.length is 0; allowed: 1 to"),
        ({"window": {"gap": {"policy": "drp"}}}, r"window.gap.policy is 'drp'; .*did you mean drop\?"),
        ({"channels": []}, r"channels is empty"),
        ({"channels": [{"name": "a", "minimum": 2, "maximum": 1}]}, r"channels\[0\].minimum is 2.0 and maximum 1.0"),
        ({"channels": [{"name": "a", "minimum": 0}]}, r"missing key channels\[0\].maximum"),
        ({"channels": [{"name": "a", "minimum": 0, "maximum": 1}] * 2}, r"channels has a more than once"),
        ({"loss": "msee"}, r"loss is 'msee'; .*did you mean mse\?"),
        ({"loss": "cross_entropy"}, r"label.classes is empty"),
        ({"loss": "reconstruction"}, r"loss is reconstruction with label.kind column"),
        ({"features": [{"kind": "mean", "channels": ["c"]}]}, r"features\[0\].channels has 'c'"),
        ({"features": [{"kind": "lag", "steps": [3]}]}, r"features\[0\].steps is \[3\]; allowed: 0 to 2"),
        ({"features": [{"kind": "band", "bands": [[0, 9]]}]}, r"features\[0\].bands reaches 9.0 Hz"),
        ({"features": [{"kind": "band"}]}, r"features\[0\].bands is \[\] for kind band"),
        ({"window": {"length": 1, "fold": 3}}, r"window.fold is 3 for 2 channels"),
        ({"split": {"kind": "time", "at": "soon"}}, r"split.at is 'soon'"),
        ({"split": {"kind": "time", "at": 3, "rows": 3}}, r"split.rows and at are both given"),
        ({"split": {"kind": "column", "column": None}}, r"split.column is missing"),
        ({"label": {"kind": "column", "column": None}}, r"label.column is missing"),
        ({"data": {"source": "synthetic"}}, r"data.generator is missing"),
        ({"data": {"file": "/home/other/patients.csv"}}, r"data.file is '/home/other/patients.csv'; .*below the data"),
        ({"data": {"file": "toy/../../patients.csv"}}, r"data.file is .*without '\.\.'"),
        ({"context": {"file": "../f", "columns": ["a"]}}, r"context\[0\].file is '../f'"),
        ({"events": {"file": "~/f", "time": "t"}}, r"events\[0\].file is '~/f'"),
        ({"context": {"file": "f", "columns": ["c"]}}, r"context\[0\].columns has 'c'"),
        ({"events": {"file": "f", "time": "t", "since": "c"}}, r"events\[0\].since is 'c'"),
        ({"events": {"file": "f", "time": "t", "horizon": 3}}, r"events\[0\].within is None and horizon 3"),
        ({"training": {"local": {"stepps": 3}}}, r"training.local.stepps is not known; .*did you mean steps\?"),
        ({"training": {"private": {"local": {"lr": 3}}}}, r"training.private.local.lr is not known"),
        ({"training": {"rounds": 0}}, r"training.rounds is 0"),
        ({"schema": "fedsite.task/2"}, r"schema is 'fedsite.task/2'; allowed: fedsite.task/1"),
        ({"name": "../x"}, r"name is '../x'"),
    ],
)
def test_what_is_refused(toy_document, sections, message):
    for key, value in sections.items():
        old = toy_document.get(key)
        toy_document[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    with pytest.raises(TaskError, match=message) as caught:
        read_task(toy_document)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("document", [None, 3, [], "task"])
def test_what_is_no_document(document):
    with pytest.raises(TaskError, match="the document is"):
        read_task(document)


def test_an_unknown_task_is_told_the_nearest():
    with pytest.raises(TaskError, match=r"task 'engine_rull' is unknown; .*did you mean engine_rul\?"):
        load_task("engine_rull")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\n  title: b\n", r"mine.yaml, line 2, column 8: mapping values are not allowed"),
        ("name: a\nname: b\n", r"mine.yaml, line 2, column 1: key name is given twice"),
        ("name: [a\n", r"mine.yaml, line 2"),
        ("name: a\nwindow: {lenght: 3}\n", r"mine.yaml: missing key data|mine.yaml: unknown key"),
        ("", r"mine.yaml: the document is empty"),
        ("? [a]\n: b\n", r"mine.yaml, line 1"),
        ("a: !!python/object/apply:os.system [ls]\n", r"mine.yaml, line 1"),
    ],
)
def test_a_malformed_file_is_told_its_line(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(TaskError, match=message) as caught:
        load_task(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(TaskError, match=r"mine.yaml cannot be read"):
        load_task(tmp_path / "mine.yaml")
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TaskError, match="is not UTF-8"):
        load_task(path)


def test_a_number_in_scientific_writing_is_a_number(tmp_path):
    from fedsite.telemetry import yaml_text

    assert yaml_text.parse("a: 1e-5\nb: 2E3\nc: 1.5e+2\nd: text\n", "t") == {
        "a": 1e-5,
        "b": 2e3,
        "c": 150.0,
        "d": "text",
    }


def test_reading_a_task_loads_neither_a_dataframe_library_nor_torch():
    program = (
        "import sys; from fedsite.telemetry.task import load_task; from fedsite.telemetry import loading; "
        "load_task('engine_rul'); sys.exit(bool({'polars', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
