"""The part of the machine in which somebody without a connection says something."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from protocol.verification import strategies, visit_strategies
from protocol.verification.coming_back import ComingBack, connections
from protocol.verification.strategies import peers


class Visiting(ComingBack):
    """Visitors come among the peers, under their names and under others."""

    @precondition(lambda self: self.subject.has_visits)
    @rule(name=peers, data=st.data())
    def visit(self, name: str, data: st.DataObject) -> None:
        permit = data.draw(visit_strategies.permits(name, self.subject.now))
        self.judge.visit(data.draw(visit_strategies.said(self.subject.limits)), permit)

    @precondition(lambda self: self.subject.has_visits)
    @rule(target=connections, name=peers, data=st.data())
    def join_and_be_visited(self, name: str, data: st.DataObject) -> int:
        c = self._open(name)
        agents = data.draw(st.sampled_from([["x"], ["x", "y"], []]))
        here = {"type": "presence", "from": name, "data": {"agents": agents}}
        self.judge.send(c, strategies.text_of(here))
        said = st.lists(visit_strategies.under_any_name(name), min_size=3, max_size=6)
        for one in data.draw(said):
            self.judge.visit(one, data.draw(visit_strategies.permits(name, self.subject.now)))
        return c
