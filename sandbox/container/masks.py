"""What of /proc and /sys no code in a sandbox sees, or may change."""

from __future__ import annotations

_MASKED_IN_PROC = (
    # What an engine hides by itself.
    *("acpi", "asound", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list"),
    *("timer_stats",),
    # Which kernel this is and what it was started with.
    *("cmdline", "config.gz", "kallsyms", "modules", "version", "version_signature"),
    # What the host and its other sessions do: load, pressure, interrupts, pages, keys, locks.
    *("buddyinfo", "diskstats", "interrupts", "key-users", "loadavg", "locks", "pagetypeinfo"),
    *("pressure", "schedstat", "slabinfo", "softirqs", "swaps", "vmallocinfo", "vmstat"),
    *("zoneinfo",),
    # Which hardware and drivers it has, and doors to them.
    *("bus", "cgroups", "consoles", "crypto", "devices", "dma", "driver", "execdomains", "fs"),
    *("iomem", "ioports", "irq", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "misc"),
    *("mtrr", "partitions"),
    # Which boot of which host this is, and what all that it runs together holds of its pools.
    *("sys/kernel/random/boot_id", "sys/kernel/pty/nr", "sys/fs/file-nr", "sys/fs/inode-nr"),
    *("sys/fs/inode-state", "sys/fs/dentry-state", "sys/fs/aio-nr"),
)
# All of /sys but the session's own control group, in which it may see its limits: the probe proves
# them there, and the supervisor learns there that a kernel was killed for memory.
_MASKED_IN_SYS = (
    *("block", "bus", "class", "dev", "devices", "firmware", "hypervisor", "kernel", "module"),
    *("power", "fs/bpf", "fs/btrfs", "fs/ecryptfs", "fs/erofs", "fs/ext4", "fs/f2fs", "fs/fuse"),
    *("fs/gfs2", "fs/nfs", "fs/nilfs2", "fs/orangefs", "fs/pstore", "fs/resctrl", "fs/selinux"),
    *("fs/smackfs", "fs/virtiofs", "fs/xfs", "fs/zfs"),
)
MASKED_PATHS = tuple(f"/proc/{name}" for name in _MASKED_IN_PROC) + tuple(
    f"/sys/{name}" for name in _MASKED_IN_SYS
)
READONLY_PATHS = ("/proc/sys", "/proc/sysrq-trigger")
