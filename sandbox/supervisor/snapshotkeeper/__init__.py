"""The process that keeps snapshots of the workspace: in its own memory, where no cell can look.

It is a program of its own, so that it has nothing of the supervisor's, and nothing here waits for
anybody but its one socket.
"""
