"""The variables that a container has: by which programs find the way out, and the images' own."""

from __future__ import annotations

PROXY = "http://127.0.0.1:3128"
"""Where the supervisor takes what goes out; also SOCKS5."""
PROXY_VARIABLES = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), PROXY),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1,sandbox,127.0.0.2"),
}
"""Also in a session that may reach nothing: there it is told which rule says so. Not ALL_PROXY,
for which programs need SOCKS that many do not have. The last two are the container's own name and
what it resolves to."""
PROCESSOR_VARIABLES = (
    *("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"),
    *("GOMAXPROCS", "PYTHON_CPU_COUNT"),
)
"""From which programs take how many threads to start: those of OpenMP and BLAS (and nproc), Numba,
Polars, Rust, Go, and Python from 3.13 on. They would count the host's processors otherwise; what
asks libc is told by the images' own library (docs/adr/0014-programs-see-their-own-limits.md)."""
CA_FILE = "/tmp/.sandbox/ca.pem"  # noqa: S108  # the container's own
CA_VARIABLES = (
    *("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"),
    "NODE_EXTRA_CA_CERTS",
)
"""What programs read to find the certificates they trust."""
NETWORK_VARIABLES = frozenset(
    {
        *(*PROXY_VARIABLES, *CA_VARIABLES, "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
        *("PIP_TRUSTED_HOST", "UV_DEFAULT_INDEX", "UV_INDEX"),
    }
)
"""The variables by which programs find the way out that a policy opens."""
IMAGE_VARIABLES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TERM", "HOSTNAME"),
        *("PAGER", "EDITOR", "GIT_PAGER", "GIT_EDITOR", "GIT_TERMINAL_PROMPT"),
        *("PYTHONUSERBASE", "PYTHONDONTWRITEBYTECODE", "PIP_NO_CACHE_DIR"),
        *("PIP_DISABLE_PIP_VERSION_CHECK", "IPYTHONDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"),
    }
)
"""What the images set, and HOSTNAME, which engines do."""
