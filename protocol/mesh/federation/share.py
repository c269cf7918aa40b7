"""Of what a mesh decides, the part for the connections of one node.

Audiences name connections of all nodes. Here are those of one node left, as its supervisor knows
them; who is over there gets nothing more, even if the mesh does not know that yet.
"""

from collections.abc import Container
from typing import Final

from protocol.mesh.effects import (
    Admitted,
    Chosen,
    Counted,
    Deliver,
    Effect,
    Everyone,
    Only,
    Others,
    Snapshot,
    Spared,
    Wants,
)

_EVERYONE: Final = Everyone()


def share(effects: list[Effect], here: Container[int], into: list[Effect]) -> None:
    """Move the effects, as far as they concern the connections that are here, `into` a list."""
    for effect in effects:
        if type(effect) is Deliver:  # the one that comes per message
            audience = effect.audience
            if type(audience) is Others:
                excluded = tuple([id for id in audience.excluded if id in here])
                if not excluded:
                    into.append(Deliver(effect.texts, _EVERYONE))
                elif len(excluded) == len(audience.excluded):
                    into.append(effect)
                else:
                    into.append(Deliver(effect.texts, Others(excluded)))
                continue
            if type(audience) is Only:
                those = tuple([id for id in audience.connections if id in here])
                if those:
                    into.append(Deliver(effect.texts, Only(those)))
                continue
            if type(audience) is Chosen:
                excluded = tuple([id for id in audience.excluded if id in here])
                also = tuple([id for id in audience.also if id in here])
                chosen = Chosen(audience.wishes, excluded, also)
                into.append(Deliver(effect.texts, chosen))
                continue
            into.append(effect)
            continue
        match effect:
            case Snapshot(id) | Admitted(id) | Wants(id) | Counted(id) | Spared(id):
                if id in here:
                    into.append(effect)
            case _:
                into.append(effect)
    effects.clear()
