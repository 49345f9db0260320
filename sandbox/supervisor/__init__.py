"""What runs inside a container: kernels, commands, terminals and files behind one link.

Standard library, pyzmq and ipykernel only, plus ``sandbox.errors``, ``sandbox.link.wire`` and
``sandbox.link``. The code beside it is hostile and has the same uid, so nothing here is trusted by
the controller; what this package owes is to stay up and to be fast.
"""
