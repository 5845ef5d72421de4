"""The architectures by name: the built-in ones and those a site installed; the centre names them, never sends them.

An architecture is a `torch.nn.Module` class with a dataclass `Options` inside and a constructor
`(settings, *, time, features, outputs)`. A site adds one with an ordinary package whose entry point is in group
`fedsite.models`: `my_model = "my_package:MyModel"`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from fedsite.protocol import shape
from fedsite.protocol.errors import ConfigError, RefusalCode

if TYPE_CHECKING:
    from torch import nn

GROUP = "fedsite.models"

_BUILT_IN = {
    "autoencoder": "fedsite.models.autoencoder:Autoencoder",
    "cnn1d": "fedsite.models.cnn1d:CNN1d",
    "cnn2d": "fedsite.models.cnn2d:CNN2d",
    "conv_autoencoder": "fedsite.models.conv_autoencoder:ConvAutoencoder",
    "gru": "fedsite.models.gru:GRU",
    "mlp": "fedsite.models.mlp:MLP",
    "tcn": "fedsite.models.tcn:TCN",
}
_lent: dict[str, Any] = {}  # of this process


def names() -> list[str]:
    """Every architecture that `build` knows here, sorted; loads no torch."""
    return sorted({*_entries(), *_lent})


@contextmanager
def lent(name: str, architecture: Any) -> Iterator[None]:
    """Let this process know an architecture that no package brings, until the block ends; for a researcher's notebook.

    Args:
        name: not that of an installed one.
        architecture: called with `(settings, *, time, features, outputs)`, and with a dataclass `Options` inside.

    Raises:
        ConfigError: the name is taken.
    """
    if name in names():
        raise ConfigError(f"model name {name!r} is taken", allowed="a name of its own")
    _lent[name] = architecture
    try:
        yield
    finally:
        del _lent[name]


def installed() -> list[str]:
    """Only those that came with other packages, sorted: what a site's policy lists."""
    return sorted(set(_entries()) - set(_BUILT_IN))


def is_built_in(module: nn.Module) -> bool:
    """Whether this is one of the architectures that come with fedsite, and nothing derived from one."""
    return f"{type(module).__module__}:{type(module).__qualname__}" in _BUILT_IN.values()


def build(
    name: str, options: Mapping[str, Any] | None = None, *, time: int, features: int, outputs: int, seed: int
) -> nn.Module:
    """Make a model with fresh weights, the same for the same arguments; the process's own random state is not touched.

    Args:
        name: one of `names()`.
        options: the architecture's settings; missing ones take their defaults.
        time: time steps of a window (rows, for cnn2d).
        features: features at each step (columns, for cnn2d).
        outputs: classes, targets or 1; ignored by autoencoders.
        seed: of the initial weights, 0 to 2^63 - 1.

    Raises:
        ConfigError: unknown name or option (with the nearest one), an option of the wrong type or range.
    """
    import torch

    for label, value in (("time", time), ("features", features), ("outputs", outputs)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"model input {label} is {value!r}", allowed="an integer of at least 1")
    architecture = _load(name)
    settings = shape.read(architecture.Options, {} if options is None else options, "model.options")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: nn.Module = architecture(settings, time=time, features=features, outputs=outputs)
    return module


def check(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All settings of a model with defaults filled in, as plain JSON values.

    Raises:
        ConfigError: as `build`.
    """
    settings: dict[str, Any] = shape.plain(
        shape.read(_load(name).Options, {} if options is None else options, "model.options")
    )
    return settings


def _entries() -> dict[str, EntryPoint]:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    # A package cannot replace a built-in name: a plan that says "mlp" means ours.
    return found | {name: EntryPoint(name, value, GROUP) for name, value in _BUILT_IN.items()}


def _load(name: str) -> Any:
    if name in _lent:
        return _lent[name]
    # Reading what is installed takes longer than building a model, and cannot change a built-in name.
    entries = {name: EntryPoint(name, _BUILT_IN[name], GROUP)} if name in _BUILT_IN else _entries()
    if name not in entries:
        raise ConfigError(
            f"unknown model {name!r}",
            allowed=shape.nearest(name, sorted(entries)),
            next_step="set model.name to one of these, or install the package that brings it at every site",
            refusal=RefusalCode.MODEL_UNKNOWN,
        )
    try:
        architecture = entries[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"model {name!r} cannot be loaded from {entries[name].value} ({error})",
            allowed="an importable class",
            next_step="install or repair the package that brings it (training needs: pip install 'fedsite[site]')",
            refusal=RefusalCode.MODEL_UNKNOWN,
        ) from error
    if not hasattr(architecture, "Options"):
        raise ConfigError(
            f"model {name!r} ({entries[name].value}) has no Options",
            allowed="a torch.nn.Module class with a dataclass named Options",
            refusal=RefusalCode.MODEL_UNKNOWN,
        )
    return architecture
