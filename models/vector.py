"""A model's weights as named numpy arrays and as one flat vector, and back: strict in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = NDArray[np.generic]
LARGEST_FILE = 1 << 30  # bytes, of `model.init`
_SHOWN = 6


def state(module: nn.Module) -> dict[str, Array]:
    """Copies of all weights and buffers by name, names sorted, on the CPU."""
    found = module.state_dict()
    return {name: found[name].detach().cpu().numpy().copy() for name in sorted(found)}


def load(module: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Put `arrays` into the model; nothing is changed unless all of them fit.

    Raises:
        IntegrityError: a tensor is missing, unexpected, of another shape or dtype, or holds NaN or infinity.
    """
    import torch

    own = module.state_dict()
    _same_names(own, arrays)
    for name, tensor in own.items():
        expected = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        _same_kind(name, arrays[name], tuple(tensor.shape), expected)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))


def load_file(module: nn.Module, path: Path) -> None:
    """Start from a safetensors file (`model.init=FILE`).

    Raises:
        ConfigError: the file cannot be read.
        IntegrityError: it is not safetensors, or its tensors are not this model's.
    """
    from fedsite.protocol import weights

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"model.init={path} cannot be read ({error.strerror})",
            allowed="a safetensors file",
            next_step=f"ls -l {path}",
        ) from None
    try:
        load(module, weights.decode(data, limit=LARGEST_FILE))
    except IntegrityError as error:
        raise IntegrityError(
            f"model.init={path}: {error.found}",
            allowed=error.allowed,
            next_step="use weights of the same model.name and model.options, or leave model.init out",
        ) from error


def finite(new: Mapping[str, Array], old: Mapping[str, Array]) -> dict[str, Array]:
    """`new`, with the number of `old` wherever the new one, or its change, is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        good = {name: np.isfinite(array) & np.isfinite(array - old[name]) for name, array in new.items()}  # type: ignore[operator]
    return {name: np.where(good[name], array, old[name]).astype(array.dtype) for name, array in new.items()}


def delta(new: Mapping[str, Array], old: Mapping[str, Array], names: list[str]) -> dict[str, Array]:
    """`new - old` of the trained tensors, names sorted.

    Raises:
        IntegrityError: a name is missing in either, or shapes differ.
    """
    found = {}
    for name in sorted(names):
        for where, arrays in (("new", new), ("old", old)):
            if name not in arrays:
                raise IntegrityError(f"tensor {name} is not among the {where} weights", allowed=_some(arrays))
        _same_kind(name, new[name], old[name].shape, old[name].dtype)
        found[name] = new[name] - old[name]  # type: ignore[operator]
    return found


def ordered(module: nn.Module, arrays: Mapping[str, Array]) -> list[Tensor]:
    """The named arrays as tensors, in the order of the parameters that are trained."""
    import torch

    named = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    return [torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in named]


def apply(arrays: Mapping[str, Array], change: Mapping[str, Array]) -> dict[str, Array]:
    """`arrays + change`, in the dtype of `arrays`; tensors without a change are copied.

    Raises:
        IntegrityError: the change names an unknown tensor, has another shape, or is not finite.
    """
    for name, array in change.items():
        if name not in arrays:
            raise IntegrityError(f"change of an unknown tensor {name}", allowed=_some(arrays))
        _same_kind(name, array, arrays[name].shape, None)
    return {
        name: (array + change[name]).astype(array.dtype) if name in change else array.copy()  # type: ignore[operator]
        for name, array in sorted(arrays.items())
    }


def flatten(arrays: Mapping[str, Array]) -> NDArray[np.float64]:
    """All numbers in one vector, names sorted."""
    if not arrays:
        return np.zeros(0)
    return np.concatenate([np.asarray(arrays[name], np.float64).ravel() for name in sorted(arrays)])


def unflatten(vector: NDArray[np.floating], like: Mapping[str, Array]) -> dict[str, Array]:
    """The inverse of `flatten`, in the shapes and dtypes of `like`.

    Raises:
        IntegrityError: the vector has another length.
    """
    total = size(like)
    if vector.shape != (total,):
        raise IntegrityError(f"vector of shape {list(vector.shape)}", allowed=f"[{total}]")
    found: dict[str, Array] = {}
    start = 0
    for name in sorted(like):
        end = start + like[name].size
        found[name] = vector[start:end].reshape(like[name].shape).astype(like[name].dtype)
        start = end
    return found


def size(arrays: Mapping[str, Array]) -> int:
    """How many numbers the arrays hold."""
    return sum(array.size for array in arrays.values())


def parameters(module: nn.Module) -> int:
    """How many parameters the model has, frozen ones too."""
    return sum(parameter.numel() for parameter in module.parameters())


def trainable(module: nn.Module, pattern: str) -> list[str]:
    """Freeze all but the chosen parameters.

    Args:
        module: changed in place (`requires_grad`).
        pattern: `all`, `head` (the last layer that has parameters), or a glob over parameter names.

    Returns:
        The names that are trained, sorted.

    Raises:
        ConfigError: nothing matches.
    """
    known = [name for name, _ in module.named_parameters()]
    if pattern == "all":
        chosen = set(known)
    elif pattern == "head":
        chosen = _head(module)
    else:
        chosen = {name for name in known if fnmatchcase(name, pattern)}
    if not chosen:
        raise ConfigError(
            f"model.trainable={pattern} matches no parameter",
            allowed=f"all, head, or a glob over {', '.join(known[:_SHOWN])}{', …' if len(known) > _SHOWN else ''}",
        )
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in chosen)
    return sorted(chosen)


def _head(module: nn.Module) -> set[str]:
    owners = [name for name, child in module.named_modules() if any(True for _ in child.parameters(recurse=False))]
    if not owners:
        return set()
    prefix = f"{owners[-1]}." if owners[-1] else ""
    direct = module.get_submodule(owners[-1]).named_parameters(recurse=False)
    return {f"{prefix}{name}" for name, _ in direct}


def _same_names(own: Mapping[str, object], arrays: Mapping[str, Array]) -> None:
    missing = sorted(set(own) - set(arrays))
    if missing:
        raise IntegrityError(f"tensor {missing[0]} is missing ({len(missing)} missing)", allowed=_some(own))
    unexpected = sorted(set(arrays) - set(own))
    if unexpected:
        raise IntegrityError(f"unexpected tensor {unexpected[0]} ({len(unexpected)} unexpected)", allowed=_some(own))


def _same_kind(name: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[np.generic] | None) -> None:
    if array.shape != shape:
        raise IntegrityError(f"tensor {name} has shape {list(array.shape)}", allowed=f"{list(shape)}")
    if dtype is not None and array.dtype != dtype:
        raise IntegrityError(f"tensor {name} is {array.dtype}", allowed=f"{dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise IntegrityError(f"tensor {name} holds NaN or infinity", allowed="finite numbers")


def _some(names: Mapping[str, object]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (f", … ({len(ordered)} tensors)" if len(ordered) > _SHOWN else "")
