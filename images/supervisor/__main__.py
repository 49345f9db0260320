"""Start the supervisor: `python3 -I /opt/sandbox`.

Isolated mode keeps the session's variables, user packages and working directory out of the
supervisor's imports; only this folder, the standard library and the image's packages are seen.
"""

from sandbox.supervisor.main import main

main()
