"""The report of what `accelerate` did to a model."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Finding:
    """One module that a rule looked at."""

    where: str
    """Its name in the model."""
    what: str
    why_not: str | None = None
    """None: it was swapped."""

    def below(self, name: str) -> "Finding":
        """Tell of the same module where the model is a part, of this name, of another."""
        return replace(self, where=f"{name}.{self.where}".rstrip("."))

    def undone(self, why_not: str) -> "Finding":
        """Tell of one that was restored."""
        return self if self.why_not else Finding(self.where, self.what.partition(" -> ")[0], why_not)


class Report(list[Finding]):
    """All of them; prints as a table."""

    @property
    def swapped(self) -> list[Finding]:
        """List what is faster now."""
        return [finding for finding in self if finding.why_not is None]

    @property
    def left(self) -> list[Finding]:
        """List what stayed as it was."""
        return [finding for finding in self if finding.why_not is not None]

    def __str__(self) -> str:
        rows = [("where", "what", "why not")]
        rows += [(finding.where or "(the model)", finding.what, finding.why_not or "") for finding in self]
        first, second = (max(len(row[i]) for row in rows) for i in range(2))
        return "\n".join(f"{a:<{first}}  {b:<{second}}  {c}".rstrip() for a, b, c in rows)

    __repr__ = __str__
