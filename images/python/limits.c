/* What programs are told when they ask how large the machine is: the session's own limits.
 *
 * libc and /proc answer with the host's memory and processors, since containers have none of their
 * own. /etc/ld.so.preload loads this library into every program of the image; it answers for them
 * with what the control group says now. It is a help and no barrier: the limits are the kernel's,
 * and a program that asks the kernel by itself hears of the host. Where no control group is to be
 * seen, or none limits anything, libc's own answer stands.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define CGROUP "/sys/fs/cgroup/"

/* The forms of programs that are compiled with _FORTIFY_SOURCE. */
int __open_2(const char *, int);
int __open64_2(const char *, int);
int __openat_2(int, const char *, int);
int __openat64_2(int, const char *, int);

/* libc's own functions of these names. They are looked up as soon as the library is there: later,
 * in a child of a process of many threads, the loader may be locked. */
#define REPLACED(EACH)                                                                             \
    EACH(open) EACH(open64) EACH(openat) EACH(openat64) EACH(fopen) EACH(fopen64)                  \
    EACH(__open_2) EACH(__open64_2) EACH(__openat_2) EACH(__openat64_2)                            \
    EACH(get_nprocs) EACH(get_nprocs_conf) EACH(sysconf) EACH(sysinfo)
#define DECLARE(name) static __typeof__(name) *next_##name;
#define FIND(name) next_##name = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);
#define NEXT(name) (next_##name ? next_##name : (find(), next_##name))

REPLACED(DECLARE)

__attribute__((constructor)) static void find(void)
{
    REPLACED(FIND)
}

typedef unsigned long long bytes_t;

struct memory {
    bytes_t total, used, anon, file, shmem, active_file, inactive_file, slab, reclaimable;
};

/* The beginning of a file, without the functions that are replaced here; -1 if there is none. */
static long start_of(const char *path, char *text, size_t size)
{
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t length = 0;
    long got;
    while (length < size - 1 && (got = read(fd, text + length, size - 1 - length)) > 0)
        length += got;
    close(fd);
    text[length] = 0;
    return length;
}

/* The first number in a file; 0 if there is none, as where it says "max" or -1. */
static bytes_t number_in(const char *path)
{
    char text[64];
    if (start_of(path, text, sizeof text) <= 0 || text[0] < '0' || text[0] > '9')
        return 0;
    return strtoull(text, NULL, 10);
}

/* The number behind a word at the beginning of a line; 0 if there is none. */
static bytes_t figure(const char *lines, const char *word)
{
    size_t length = strlen(word);
    for (const char *line = lines; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, word, length) && line[length] == ' ')
            return strtoull(line + length, NULL, 10);
    }
    return 0;
}

static bytes_t machine(struct sysinfo *info)
{
    return syscall(SYS_sysinfo, info) ? 0 : (bytes_t)info->totalram * info->mem_unit;
}

static int find_memory(struct memory *m)
{
    static const char *const names[][10] = {
        {CGROUP "memory.max", CGROUP "memory.current", CGROUP "memory.stat", "anon", "file",
         "shmem", "active_file", "inactive_file", "slab", "slab_reclaimable"},
        {CGROUP "memory/memory.limit_in_bytes", CGROUP "memory/memory.usage_in_bytes",
         CGROUP "memory/memory.stat", "total_rss", "total_cache", "total_shmem",
         "total_active_file", "total_inactive_file", "", ""},
    };
    struct sysinfo info;
    int version = 0;
    m->total = number_in(names[0][0]);
    if (!m->total)
        m->total = number_in(names[version = 1][0]);
    if (!m->total || m->total >= machine(&info))
        return 0;
    char lines[8192];
    if (start_of(names[version][2], lines, sizeof lines) < 0)
        lines[0] = 0;
    m->used = number_in(names[version][1]);
    if (m->used > m->total)
        m->used = m->total;
    bytes_t *const found[] = {&m->anon, &m->file, &m->shmem, &m->active_file, &m->inactive_file,
                              &m->slab, &m->reclaimable};
    for (int i = 0; i < 7; i++)
        *found[i] = figure(lines, names[version][3 + i]);
    return 1;
}

static bytes_t unused(const struct memory *m)
{
    return m->total - m->used;
}

/* What programs could have: the unused, and what the kernel can drop. */
static bytes_t available(const struct memory *m)
{
    bytes_t sum = unused(m) + m->active_file + m->inactive_file + m->reclaimable;
    return sum < m->total ? sum : m->total;
}

/* The processors that the limit is worth, rounded up; 0 if there is no limit. */
static long processors(void)
{
    bytes_t quota = 0, period = 0;
    char text[64], *end;
    if (start_of(CGROUP "cpu.max", text, sizeof text) > 0) {
        quota = strtoull(text, &end, 10); /* 0 where it says "max" */
        period = strtoull(end, NULL, 10);
    } else {
        quota = number_in(CGROUP "cpu/cpu.cfs_quota_us");
        period = number_in(CGROUP "cpu/cpu.cfs_period_us");
    }
    if (quota && period)
        return (quota + period - 1) / period;
    const char *said = getenv("PYTHON_CPU_COUNT"); /* where no control group is to be seen */
    return said ? strtoul(said, NULL, 10) : 0;
}

static long at_most_own(long all)
{
    int error = errno;
    long own = processors();
    errno = error;
    return own > 0 && own < all ? own : all;
}

/* An unnamed file; -1 if it cannot be had. */
static int unnamed(int flags)
{
    return syscall(SYS_memfd_create, "limits", flags & O_CLOEXEC ? MFD_CLOEXEC : 0);
}

static void put(int fd, const char *text, long length)
{
    long done;
    for (; length > 0 && (done = write(fd, text, length)) > 0; length -= done)
        text += done;
}

static int open_meminfo(int flags)
{
    struct memory m;
    if (!find_memory(&m))
        return -1;
    const struct {
        const char *name;
        bytes_t bytes;
    } lines[] = {
        {"MemTotal:", m.total},
        {"MemFree:", unused(&m)},
        {"MemAvailable:", available(&m)},
        {"Buffers:", 0},
        {"Cached:", m.file},
        {"SwapCached:", 0},
        {"Active:", m.active_file},
        {"Inactive:", m.anon + m.shmem + m.inactive_file},
        {"Active(anon):", 0},
        {"Inactive(anon):", m.anon + m.shmem},
        {"Active(file):", m.active_file},
        {"Inactive(file):", m.inactive_file},
        {"SwapTotal:", 0},
        {"SwapFree:", 0},
        {"AnonPages:", m.anon},
        {"Shmem:", m.shmem},
        {"Slab:", m.slab},
        {"SReclaimable:", m.reclaimable},
    };
    int fd = unnamed(flags);
    for (size_t i = 0; fd >= 0 && i < sizeof lines / sizeof *lines; i++) {
        char text[64];
        put(fd, text, snprintf(text, sizeof text, "%-15s %8llu kB\n", lines[i].name,
                               lines[i].bytes / 1024));
    }
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET);
    return fd;
}

/* The beginning of the host's list of processors, each of which a blank line follows. */
static int open_cpuinfo(int flags)
{
    char text[4096], last = 0;
    long own = processors(), length;
    int from = own > 0 ? syscall(SYS_openat, AT_FDCWD, "/proc/cpuinfo", O_RDONLY | O_CLOEXEC) : -1;
    if (from < 0)
        return -1;
    int fd = unnamed(flags);
    while (fd >= 0 && own > 0 && (length = read(from, text, sizeof text)) > 0) {
        long end = 0;
        while (end < length && own > 0) {
            own -= last == '\n' && text[end] == '\n';
            last = text[end++];
        }
        put(fd, text, end);
    }
    close(from);
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET);
    return fd;
}

/* The file that is shown in place of one of the host's; -1 for all others. */
static int in_place_of(const char *path, int flags)
{
    if (!path || strncmp(path, "/proc/", 6) || (flags & (O_ACCMODE | O_PATH)) != O_RDONLY)
        return -1;
    int error = errno, fd = -1;
    if (!strcmp(path + 6, "meminfo"))
        fd = open_meminfo(flags);
    else if (!strcmp(path + 6, "cpuinfo"))
        fd = open_cpuinfo(flags);
    errno = error;
    return fd;
}

/* --- what is replaced */

#define MODE(flags)                                                                                \
    ({                                                                                             \
        int mode = 0;                                                                              \
        if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) {                                    \
            va_list rest;                                                                          \
            va_start(rest, flags);                                                                 \
            mode = va_arg(rest, int);                                                              \
            va_end(rest);                                                                          \
        }                                                                                          \
        mode;                                                                                      \
    })

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        int fd = in_place_of(path, flags);                                                         \
        return fd >= 0 ? fd : NEXT(name)(path, flags, MODE(flags));                                \
    }

#define OPENAT(name)                                                                               \
    int name(int folder, const char *path, int flags, ...)                                         \
    {                                                                                              \
        int fd = in_place_of(path, flags);                                                         \
        return fd >= 0 ? fd : NEXT(name)(folder, path, flags, MODE(flags));                        \
    }

#define FOPEN(name)                                                                                \
    FILE *name(const char *path, const char *mode)                                                 \
    {                                                                                              \
        int reads = mode && mode[0] == 'r' && !strchr(mode, '+');                                  \
        int fd = reads ? in_place_of(path, strchr(mode, 'e') ? O_CLOEXEC : 0) : -1;                \
        return fd >= 0 ? fdopen(fd, mode) : NEXT(name)(path, mode);                                \
    }

#define OPEN_2(name)                                                                               \
    int name(const char *path, int flags)                                                          \
    {                                                                                              \
        int fd = in_place_of(path, flags);                                                         \
        return fd >= 0 ? fd : NEXT(name)(path, flags);                                             \
    }

#define OPENAT_2(name)                                                                             \
    int name(int folder, const char *path, int flags)                                              \
    {                                                                                              \
        int fd = in_place_of(path, flags);                                                         \
        return fd >= 0 ? fd : NEXT(name)(folder, path, flags);                                     \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
OPEN_2(__open_2)
OPEN_2(__open64_2)
OPENAT_2(__openat_2)
OPENAT_2(__openat64_2)
FOPEN(fopen)
FOPEN(fopen64)

int get_nprocs(void)
{
    return at_most_own(NEXT(get_nprocs)());
}

int get_nprocs_conf(void)
{
    return at_most_own(NEXT(get_nprocs_conf)());
}

long sysconf(int name)
{
    struct memory m;
    long all = NEXT(sysconf)(name);
    if (name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF)
        return at_most_own(all);
    if ((name == _SC_PHYS_PAGES || name == _SC_AVPHYS_PAGES) && find_memory(&m))
        return (name == _SC_PHYS_PAGES ? m.total : unused(&m)) / getpagesize();
    return all;
}

long get_phys_pages(void)
{
    return sysconf(_SC_PHYS_PAGES);
}

long get_avphys_pages(void)
{
    return sysconf(_SC_AVPHYS_PAGES);
}

int sysinfo(struct sysinfo *info)
{
    struct memory m;
    int failed = NEXT(sysinfo)(info);
    if (failed || !find_memory(&m))
        return failed;
    info->totalram = m.total / info->mem_unit;
    info->freeram = unused(&m) / info->mem_unit;
    info->sharedram = m.shmem / info->mem_unit;
    info->bufferram = info->totalswap = info->freeswap = 0;
    return 0;
}
