"""The broker: holds the engine's socket, and does with it what a controller may and nothing else.

It lets the process that speaks to the network run without the engine's socket and without root.
The controller asks over a Unix socket (``sandbox.runtimes.broker``) in the words of the runtime
contract; nothing of the engine's own API is passed through. What may be created, the broker
compiles itself from policies of its own; all else works only on containers that it created.
"""
