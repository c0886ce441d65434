"""The plain numbers that some networks are told about a picture beside its text."""

_SIZES = 6
"""SDXL's base: original height and width, top and left of the crop, height and width aimed at."""

_REFINED = 5
"""SDXL's refiner: original height and width, top and left of the crop, how beautiful it is to be."""


def sized_numbers(numbers: tuple[float, ...], height: int, width: int) -> tuple[float, ...]:
    """The same numbers for a picture of another size.

    Args:
        numbers: Six as SDXL's base has them, five as its refiner, or none for a network that is told none.
        height: Pixels down.
        width: Pixels across.

    Source: Podell et al. 2023 (arXiv:2307.01952), section 2.2; a picture that was painted, or resized without a crop,
    has its own size as the original one.
    """
    sides = (float(height), float(width))
    if len(numbers) == _SIZES:
        return (*sides, *numbers[2:4], *sides)
    if len(numbers) == _REFINED:
        return (*sides, *numbers[2:])
    return numbers


__all__ = ["sized_numbers"]
