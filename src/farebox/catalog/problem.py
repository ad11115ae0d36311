"""What is wrong with a catalog, said so that a program and a person can both act on it."""

from enum import StrEnum

from msgspec import Struct


class Problem(Struct, frozen=True):
    """One fault: a stable code, the JSON pointer of the field, and a sentence that helps."""

    code: StrEnum
    pointer: str
    message: str
