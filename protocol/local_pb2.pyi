from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SiteStatus(_message.Message):
    __slots__ = ("activity", "pause", "findings", "json")
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    activity: Activity
    pause: Pause
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    json: str
    def __init__(self, activity: _Optional[_Union[Activity, _Mapping]] = ..., pause: _Optional[_Union[Pause, _Mapping]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., json: _Optional[str] = ...) -> None: ...

class Activity(_message.Message):
    __slots__ = ("state", "since", "at", "pid", "kind", "run_id", "round", "error")
    STATE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    state: str
    since: str
    at: str
    pid: int
    kind: str
    run_id: str
    round: int
    error: str
    def __init__(self, state: _Optional[str] = ..., since: _Optional[str] = ..., at: _Optional[str] = ..., pid: _Optional[int] = ..., kind: _Optional[str] = ..., run_id: _Optional[str] = ..., round: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("code", "severity", "title", "text", "remedy", "depends_on")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    DEPENDS_ON_FIELD_NUMBER: _ClassVar[int]
    code: str
    severity: str
    title: str
    text: str
    remedy: str
    depends_on: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, code: _Optional[str] = ..., severity: _Optional[str] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., remedy: _Optional[str] = ..., depends_on: _Optional[_Iterable[str]] = ...) -> None: ...

class Pause(_message.Message):
    __slots__ = ("since", "until", "reason")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    since: str
    until: str
    reason: str
    def __init__(self, since: _Optional[str] = ..., until: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("seconds", "reason")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    seconds: int
    reason: str
    def __init__(self, seconds: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Paused(_message.Message):
    __slots__ = ("pause", "changed", "activity")
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    pause: Pause
    changed: bool
    activity: Activity
    def __init__(self, pause: _Optional[_Union[Pause, _Mapping]] = ..., changed: bool = ..., activity: _Optional[_Union[Activity, _Mapping]] = ...) -> None: ...

class RoundsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RoundList(_message.Message):
    __slots__ = ("rounds", "json")
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    rounds: _containers.RepeatedCompositeFieldContainer[Round]
    json: str
    def __init__(self, rounds: _Optional[_Iterable[_Union[Round, _Mapping]]] = ..., json: _Optional[str] = ...) -> None: ...

class Round(_message.Message):
    __slots__ = ("run_id", "task", "state", "plan_hash")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PLAN_HASH_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    task: str
    state: str
    plan_hash: str
    def __init__(self, run_id: _Optional[str] = ..., task: _Optional[str] = ..., state: _Optional[str] = ..., plan_hash: _Optional[str] = ...) -> None: ...

class Windows(_message.Message):
    __slots__ = ("task", "windows", "time", "features", "values")
    TASK_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    task: str
    windows: int
    time: int
    features: int
    values: bytes
    def __init__(self, task: _Optional[str] = ..., windows: _Optional[int] = ..., time: _Optional[int] = ..., features: _Optional[int] = ..., values: _Optional[bytes] = ...) -> None: ...

class Scores(_message.Message):
    __slots__ = ("version", "shape", "values", "milliseconds", "threshold")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    version: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    values: bytes
    milliseconds: float
    threshold: float
    def __init__(self, version: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., values: _Optional[bytes] = ..., milliseconds: _Optional[float] = ..., threshold: _Optional[float] = ...) -> None: ...
