/* A disk that fails and a clock that jumps: loaded before the C library into one process (LD_PRELOAD), whose calls it answers.
 *
 * The file that the environment names as FAULTS says what happens from now on, in words with a number behind each: "sync-errno 5",
 * "sync-ms 1000", "write-errno 28", "clock-seconds -3600". What is not there is in order. Only regular files fail; sockets, and
 * the pipe that the log goes to, do not. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long asked(const char *word) {
  const char *path = getenv("FAULTS");
  char text[256];
  int before = errno;
  long found = 0;
  int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
  if (file >= 0) {
    long length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    text[length > 0 ? length : 0] = 0;
    const char *at = strstr(text, word);
    if (at) found = strtol(at + strlen(word), NULL, 10);
  }
  errno = before;
  return found;
}

static int sync_fails(void) {
  long ms = asked("sync-ms ");
  if (ms > 0) {
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
  }
  errno = (int)asked("sync-errno ");
  return errno != 0;
}

static int write_fails(int fd) {
  struct stat about;
  if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) return 0;
  long fault = asked("write-errno ");
  if (fault) errno = (int)fault;
  return fault != 0;
}

#define NEXT(type, name, ...) \
  static type (*next)(__VA_ARGS__); \
  if (!next) next = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name);

int fsync(int fd) {
  NEXT(int, "fsync", int)
  return sync_fails() ? -1 : next(fd);
}

int fdatasync(int fd) {
  NEXT(int, "fdatasync", int)
  return sync_fails() ? -1 : next(fd);
}

ssize_t write(int fd, const void *bytes, size_t length) {
  NEXT(ssize_t, "write", int, const void *, size_t)
  return write_fails(fd) ? -1 : next(fd, bytes, length);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
  NEXT(ssize_t, "pwrite", int, const void *, size_t, off_t)
  return write_fails(fd) ? -1 : next(fd, bytes, length, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
  NEXT(ssize_t, "pwrite64", int, const void *, size_t, off64_t)
  return write_fails(fd) ? -1 : next(fd, bytes, length, at);
}

int ftruncate(int fd, off_t length) {
  NEXT(int, "ftruncate", int, off_t)
  return write_fails(fd) ? -1 : next(fd, length);
}

int ftruncate64(int fd, off64_t length) {
  NEXT(int, "ftruncate64", int, off64_t)
  return write_fails(fd) ? -1 : next(fd, length);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  NEXT(int, "clock_gettime", clockid_t, struct timespec *)
  int answer = next(clock, now);
  if (clock == CLOCK_REALTIME && answer == 0) now->tv_sec += asked("clock-seconds ");
  return answer;
}
