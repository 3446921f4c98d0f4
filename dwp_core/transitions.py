"""Transition tables: a state machine as data, which can be stepped, checked and printed.

A table says for each state and trigger which state follows; what is not in the table cannot happen. The diagrams in the
docs are rendered from the very tables that the code runs on, so they cannot disagree with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from dwp_core.errors import ConflictError

S = TypeVar("S", bound=str)


class Table(Generic[S]):
    """A state machine: `{(state, trigger): next state}`, where it starts, and a name for messages.

    Args:
        what: what the machine is about, e.g. "job"; begins the messages of refused steps.
        start: the state in which everything begins.
        rules: the transitions. A state that no rule leaves is final.

    Example:
        >>> door = Table("door", "closed", {("closed", "open"): "open", ("open", "close"): "closed"})
        >>> door.step("closed", "open")
        'open'
        >>> sorted(door.states)
        ['closed', 'open']
    """

    __slots__ = ("final", "rules", "start", "states", "what")

    def __init__(self, what: str, start: S, rules: Mapping[tuple[S, str], S]) -> None:
        self.what = what
        self.start = start
        self.rules = dict(rules)
        sources = frozenset(state for state, _ in rules)
        self.states = sources | frozenset(rules.values()) | {start}
        self.final = self.states - sources
        unreachable = self.states - set(self._reachable())
        if unreachable:
            raise ValueError(f"{what}: nothing leads to {', '.join(sorted(unreachable))}")

    def step(self, state: S, trigger: str) -> S:
        """The state that follows.

        Raises:
            ConflictError: (409) the table has no such step; nothing changed.
        """
        following = self.rules.get((state, trigger))
        if following is None:
            raise ConflictError(self._refusal(state, trigger))
        return following

    def allows(self, state: S, trigger: str) -> bool:
        """Whether the table has this step."""
        return (state, trigger) in self.rules

    def triggers(self, state: S) -> list[str]:
        """Every trigger that the state reacts to, in the order of the table."""
        return [trigger for source, trigger in self.rules if source == state]

    def _reachable(self) -> Iterator[S]:
        seen: set[S] = set()
        open_states = [self.start]
        while open_states:
            state = open_states.pop()
            if state not in seen:
                seen.add(state)
                yield state
                open_states += [target for (source, _), target in self.rules.items() if source == state]

    def _refusal(self, state: S, trigger: str) -> str:
        if state not in self.states:
            return (
                f'{self.what}: there is no state "{state}"; the states are {", ".join(sorted(self.states))}'
            )
        possible = self.triggers(state)
        if not possible:
            return f"a {state} {self.what} cannot {trigger}: {state} is final"
        return f"a {state} {self.what} cannot {trigger}; it can {', '.join(possible)}"


def mermaid(table: Table[S]) -> str:
    """The table as the text of a Mermaid `stateDiagram-v2`.

    Example:
        >>> print(mermaid(Table("lamp", "off", {("off", "press"): "on", ("on", "press"): "off"})))
        stateDiagram-v2
            [*] --> off
            off --> on: press
            on --> off: press
    """
    lines = ["stateDiagram-v2", f"    [*] --> {table.start}"]
    lines += [f"    {state} --> {target}: {trigger}" for (state, trigger), target in table.rules.items()]
    lines += [f"    {state} --> [*]" for state in sorted(table.final)]
    return "\n".join(lines)
