"""One mesh on several relays: what a node of a federation decides, without any I/O.

All nodes read one log, and each has a replica of every mesh. A gate passes its items (as in one
process), and the node appends them to the log as a record. When a record comes back from the log,
every node applies its items to its replica, in the order of the log. So all decide the same.

    records     what stands in the log
    outbox      what this node has to append, until it has come back
    members     who belongs to the federation, and which records count
    replica     one mesh, and the items that are applied to it
    view        both of that, and what comes from the log to change it
    share       of what a mesh decides, the part for the connections of this node
    federated   a mesh as its supervisor sees it: a gate of this node, and a replica
    snapshots   everything that a newcomer has to know
    joining     how a newcomer comes in
    standing    where a node stands: joining, joined, isolated, fenced (a total table)
    node        all of that together
    timing      how long it waits for what

docs/federation.md tells what happens when something fails.
"""
