"""What a peer decides, as files that both languages run: events in, effects out.

`python -m tests.vectors` writes the files of this folder from protocol/member; `--check` fails when
one is stale. protocol/member and browser/src replay them (test_vectors.py here, and the browser's
own tests). A file is `{"room": ..., "cases": [...]}`, and a case is one of these:

    {"name", "call", "arguments", "returns"}           a function, and what it returns
    {"name", "setup", "steps": [{"event", ...}]}       a `Member`, and what happens to it
    {"name", "class", "limits", "steps": [{"do", ...}]}    an object of a module, and what is called

`setup` holds the arguments of `Member`. An `event` is a method's `name`, its arguments by name, the
instant (`at` in seconds, `wall_ms`), and `roll`, which every roll of the dice during the event
gives. The step tells what the method `returns` or `raises`, the `effects`, and `after`: what of the
member's properties is another than before (the first step tells all of them). The ids of turns are
`turn-1`, `turn-2`, ... in their order. Texts that are sent stand as the messages in them, because
the two languages write the same JSON in different ways.

Where there is a `class`, a step calls the method `do` with `arguments`, in their order. It tells
what that `returns`, and `after`: what the object shows otherwise than before.
"""
