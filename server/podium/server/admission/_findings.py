"""What is wrong with a spec, all of it, in two kinds: what is not valid, and what is not there."""

from podium.jobs.errors import FieldViolation, InvalidSpecError, NotFoundError


class Findings:
    """Collects what is wrong, and says it all at the end."""

    def __init__(self) -> None:
        self._invalid: list[FieldViolation] = []
        self._missing: list[FieldViolation] = []
        self._reason = ""

    def invalid(self, field: str, description: str) -> None:
        """The field's value cannot be used."""
        self._invalid.append(FieldViolation(field=field, description=description))

    def missing(self, field: str, description: str, *, reason: str) -> None:
        """What the field names does not exist."""
        self._missing.append(FieldViolation(field=field, description=description))
        self._reason = self._reason or reason

    def add(self, violation: FieldViolation) -> None:
        """A violation that somebody else found."""
        self._invalid.append(violation)

    @property
    def any(self) -> bool:
        """Whether anything is wrong."""
        return bool(self._invalid or self._missing)

    def include(self, other: "Findings") -> None:
        """What was found elsewhere."""
        self._invalid += other._invalid
        self._missing += other._missing
        self._reason = self._reason or other._reason

    def about(self, field: str) -> bool:
        """Whether something is wrong with the field or a part of it already."""
        found = (*self._invalid, *self._missing)
        return any(item.field == field or item.field.startswith((f"{field}.", f"{field}[")) for item in found)

    def conclude(self) -> None:
        """Ends the matter when something was found.

        Raises:
            InvalidSpecError: something is not valid; lists what is missing, too.
            NotFoundError: all that is wrong is that something is missing.
        """
        if self._invalid:
            raise InvalidSpecError((*self._invalid, *self._missing))
        if self._missing:
            sentence = "; ".join(f"{item.field}: {item.description}" for item in self._missing)
            raise NotFoundError(sentence, reason=self._reason, violations=self._missing)
