"""Array types with shapes in them: jaxtyping's where it is installed, plain stand-ins elsewhere.

``Float[Tensor, "batch params"]`` is checked in every test (by jaxtyping and
beartype, ``tests/checked.py``) and costs nothing at run time, where jaxtyping is not a dependency.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Int64, Num, Shaped, UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, Int64, Num, Shaped, UInt8
    except ImportError:

        class _PlainArray:
            """``Float[Tensor, "…"]`` is then just ``Tensor``."""

            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Int = Int64 = Num = Shaped = UInt8 = _PlainArray

__all__ = ["Bool", "Float", "Int", "Int64", "Num", "Shaped", "UInt8"]
