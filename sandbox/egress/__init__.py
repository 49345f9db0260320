"""The egress gateway: the only way out of a sandbox, and it decides in the controller.

Every outgoing connection of a session is a stream of its link. :class:`Gateway` reads what the
client inside asks for, judges it by the session's policy (``sandbox.egress.rules``), resolves and
connects by itself, and carries the bytes. ``docs/egress.md`` says how a connection is decided.
"""
