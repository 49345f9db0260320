"""Kernels of a session: cells run in order, and every execution ends truthfully.

==================  ==========  ===================================================================
status              state       what happened
==================  ==========  ===================================================================
``ok``              kept        the cell ran to its end
``error``           kept        it raised
``interrupted``     kept        somebody interrupted or cancelled it, or it asked for input
``interrupted``     restarted   somebody restarted the kernel; ``lost`` when the kernel was stopped
``timeout``         kept        its time was over, and it stopped when interrupted
``timeout``         restarted   its time was over, and it did not stop
``died``            lost        the kernel's process ended under it; ``reason`` names the cause
``lost``            any         it never ran, or nobody can say how it ended; ``reason`` says which
==================  ==========  ===================================================================
"""
