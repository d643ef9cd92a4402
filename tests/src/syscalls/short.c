/* Real short transfers: the Nth read or write of a thread on a file of the spool moves half of what it was asked to; where
 * SHORT_FULL is set, the next one of that thread on that file finds the disk full.
 *
 * Loaded with LD_PRELOAD into a party. It does nothing until the file SHORT_ARMED exists. What it did to which file it
 * appends to SHORT_LOG, in strace's words. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static __thread unsigned calls;
static __thread int full_fd = -1;

/* Whether this call is about the spool, and which file it is. */
static int concerns(const char *name, int fd, char *path, size_t room) {
    const char *call = getenv("SHORT_CALL"), *spool = getenv("SHORT_SPOOL"), *armed = getenv("SHORT_ARMED");
    if (!call || !spool || !armed || strcmp(call, name) != 0)
        return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, room - 1);
    if (n <= 0)
        return 0;
    path[n] = 0;
    size_t length = strlen(spool);
    return strncmp(path, spool, length) == 0 && path[length] == '/' && access(armed, F_OK) == 0;
}

static void note(const char *name, int fd, const char *path) {
    char line[1024];
    int n = snprintf(line, sizeof line, "%ld %s(%d<%s>, \"\") = ? (INJECTED)\n", (long)syscall(SYS_gettid), name, fd, path);
    int log = open(getenv("SHORT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log >= 0) {
        if (syscall(SYS_write, log, line, (size_t)n) != n)
            abort();
        close(log);
    }
}

/* How many of `count` bytes this call moves; less than none: the disk is full. */
static ssize_t cut(const char *name, int fd, size_t count) {
    char path[512];
    int before = errno;
    ssize_t moves = (ssize_t)count;
    if (full_fd == fd) {
        full_fd = -1;
        errno = ENOSPC;
        return -1;
    }
    if (concerns(name, fd, path, sizeof path) && ++calls == (unsigned)atoi(getenv("SHORT_N"))) {
        note(name, fd, path);
        moves = (ssize_t)(count > 1 ? count / 2 : count);
        if (getenv("SHORT_FULL"))
            full_fd = fd;
    }
    errno = before;
    return moves;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write);
    ssize_t moves = cut("write", fd, count);
    return moves < 0 ? -1 : real(fd, bytes, (size_t)moves);
}

ssize_t read(int fd, void *bytes, size_t count) {
    REAL(read);
    ssize_t moves = cut("read", fd, count);
    return moves < 0 ? -1 : real(fd, bytes, (size_t)moves);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    REAL(pwrite64);
    ssize_t moves = cut("pwrite64", fd, count);
    return moves < 0 ? -1 : real(fd, bytes, (size_t)moves, at);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
    REAL(pread64);
    ssize_t moves = cut("pread64", fd, count);
    return moves < 0 ? -1 : real(fd, bytes, (size_t)moves, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }
ssize_t pread(int fd, void *bytes, size_t count, off_t at) { return pread64(fd, bytes, count, at); }

/* Of several buffers the first alone, which is short where there are more. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    ssize_t moves = cut("writev", fd, (size_t)count);
    return moves < 0 ? -1 : real(fd, parts, (int)moves);
}
