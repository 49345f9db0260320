"""One module for each contender, which runs in the contender's own environment.

They use the contender as its own documentation shows, and may import nothing of this project but
:mod:`benchmarks.peers.adapters` (ours alone imports it).
"""
