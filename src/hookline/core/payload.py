"""The decoded body of one event, read at most once, however many subscriptions look at it."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, final

from msgspec import MsgspecError
from msgspec.json import Decoder

Json = None | bool | int | Decimal | str | list["Json"] | dict[str, "Json"]
"""What a payload decodes to: fractions are ``Decimal``, so that no digit is lost."""


@final
class Missing:
    """The type of ``MISSING``, which stands where a path leads nowhere (JSON's null is a value)."""


MISSING: Final = Missing()

_decoder: Final[Decoder[Json]] = Decoder(float_hook=Decimal)


@final
class Payload:
    """Lazy JSON of an event's ``data``. Make one for each event and give it to all matchers."""

    __slots__ = ("_data", "_fault", "_read", "_value")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._read = False
        self._value: Json | Missing = MISSING
        self._fault = ""

    @property
    def value(self) -> Json | Missing:
        """The decoded data, or ``MISSING`` if it is not JSON that can be read; never raises."""
        if not self._read:
            self._decode()
        return self._value

    @property
    def fault(self) -> str:
        """Why the data cannot be read, or ""."""
        if not self._read:
            self._decode()
        return self._fault

    def _decode(self) -> None:
        self._read = True
        try:
            self._value = _decoder.decode(self._data)
        except (MsgspecError, UnicodeDecodeError) as error:
            self._fault = f"the payload is not valid JSON: {error}"
        except RecursionError:
            self._fault = "the payload is nested too deeply"
        except ArithmeticError:
            self._fault = "the payload has a number whose exponent is out of range"
