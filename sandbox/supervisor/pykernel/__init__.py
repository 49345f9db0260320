"""The Python kernel inside its own process: IPython's shell, driven by one thread.

The process is a fork of the supervisor. It speaks Jupyter messages over one pair of sockets, and
what cells print goes where any program's output goes, to the descriptors 1 and 2.
"""
