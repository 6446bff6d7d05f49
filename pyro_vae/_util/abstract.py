"""Abstract classes of modules."""

from __future__ import annotations

from typing import Any

__all__ = ["Abstract"]


class Abstract:
    """A base of classes with abstract methods, which cannot be instantiated.

    ``abc.ABC`` does the same by a metaclass, which would exclude ``pyro.nn.PyroModule``, as that has another one.

    Example:
        >>> from abc import abstractmethod
        >>> class Part(Abstract):
        ...     @abstractmethod
        ...     def forward(self): ...
        >>> Part()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        TypeError: Can't instantiate abstract class Part ...
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        abstract = (name for name in dir(cls) if getattr(getattr(cls, name, None), "__isabstractmethod__", False))
        cls.__abstractmethods__ = frozenset(abstract)  # object.__new__ reads it
