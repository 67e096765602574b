"""A type checker for jaxtyping that looks at arrays alone: mypy sees to every other type."""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from jaxtyping import AbstractArray

P, T = ParamSpec("P"), TypeVar("T")


def check_arrays(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, checked at each call: arrays that go in and come out have the shapes and dtypes of its annotations.

    Raises: TypeError naming the parameter.
    """
    signature = inspect.signature(function)
    hints = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    arrays = {name: hint for name, hint in hints.items() if _has_array(hint)}
    returned = signature.return_annotation
    if not arrays and not _has_array(returned):
        return function

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        given = signature.bind(*args, **kwargs).arguments
        for name, hint in arrays.items():
            if name in given:
                _check(given[name], hint, f"{function.__qualname__}: {name}")
        result = function(*args, **kwargs)
        _check(result, returned, f"{function.__qualname__}: what it returns")
        return result

    return checked


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _has_array(hint: Any) -> bool:
    if typing.get_origin(hint) is tuple:
        return any(_has_array(item) for item in typing.get_args(hint))
    return any(isinstance(option, type) and issubclass(option, AbstractArray) for option in _options(hint))


def _check(value: object, hint: Any, where: str) -> None:
    if not _has_array(hint):
        return
    if typing.get_origin(hint) is tuple:
        for item, inner in zip(typing.cast(tuple[object, ...], value), typing.get_args(hint), strict=False):
            _check(item, inner, where)
    elif not any(isinstance(value, option) for option in _options(hint) if isinstance(option, type)):
        raise TypeError(f"{where} is {type(value).__name__} {tuple(getattr(value, 'shape', ()))}, expected {hint}")
