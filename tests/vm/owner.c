/*
 * Processes whose owner has a wish about where their memory lies, or what may be done to it, and one without any: all
 * of --size MiB on --node, and each page of it is used twenty times a second. Prints a line for each, "NAME PID
 * ADDRESS", the address in hexadecimal, or "NAME absent" where the kernel does not have it. Goes on until it is ended.
 * With --zombie there is one process instead, whose first thread has ended.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096UL
#define MEMFD_SECRET 447 /* x86-64 and arm64 */
#define PINNED_PAGES 16	 /* as many as a pipe takes */

enum wish { PLAIN, BIND, PREFERRED, INTERLEAVE, LOCKED, HUGETLB, USERFAULT, SECRET, PINNED, SHARED, MERGED, WISHES };
static const char *const names[WISHES] = {"plain",	 "bind",   "preferred", "interleave", "locked", "hugetlb",
					  "userfault", "secret", "pinned",	"shared",     "merged"};

static const struct option options[] = {{"size", 1, 0, 's'}, {"node", 1, 0, 'n'}, {"zombie", 0, 0, 'z'}, {0}};

static size_t size = 8UL << 20;
static int node = 1;

static void prefer(int mode, unsigned long nodes)
{
	syscall(SYS_set_mempolicy, mode, mode == MPOL_DEFAULT ? NULL : &nodes, 64);
}

static void use(char *memory)
{
	for (size_t at = 0; at < size; at += PAGE)
		((volatile char *)memory)[at] += 1;
}

/* Fills pages that are touched for the first time, as a program that restores itself does. */
static void *fill(void *descriptor)
{
	static char page[PAGE] __attribute__((aligned(4096)));
	int fd = *(int *)descriptor;
	for (;;) {
		struct uffd_msg message;
		struct pollfd waiting = {.fd = fd, .events = POLLIN};
		poll(&waiting, 1, -1);
		if (read(fd, &message, sizeof(message)) != sizeof(message))
			continue;
		struct uffdio_copy copy = {.dst = message.arg.pagefault.address & ~(PAGE - 1),
					   .src = (unsigned long)page,
					   .len = PAGE};
		ioctl(fd, UFFDIO_COPY, &copy);
	}
	return NULL;
}

static int watch(char *memory)
{
	static int fd;
	static pthread_t thread;
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register whole = {.range = {(unsigned long)memory, size}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &whole))
		return -1;
	return pthread_create(&thread, NULL, fill, &fd);
}

static char *map(enum wish wish)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS, fd = -1;
	if (wish == HUGETLB)
		flags |= MAP_HUGETLB;
	if (wish == SECRET) {
		fd = syscall(MEMFD_SECRET, 0);
		if (fd < 0 || ftruncate(fd, size))
			return MAP_FAILED;
		flags = MAP_SHARED;
	}
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (memory != MAP_FAILED && wish != HUGETLB)
		madvise(memory, size, MADV_NOHUGEPAGE);
	return memory;
}

/* What the owner wishes, where it is said of the mapping or before it is touched; 0 when the kernel takes it. */
static int tell(enum wish wish, char *memory)
{
	unsigned long here = 1UL << node, both = 3;
	switch (wish) {
	case BIND: return syscall(SYS_mbind, memory, size, MPOL_BIND, &here, 64, 0);
	case PREFERRED: return syscall(SYS_mbind, memory, size, MPOL_PREFERRED, &here, 64, 0);
	case INTERLEAVE: return syscall(SYS_mbind, memory, size, MPOL_INTERLEAVE, &both, 64, 0);
	case MERGED: return madvise(memory, size, MADV_MERGEABLE);
	case USERFAULT: return watch(memory);
	default: return 0;
	}
}

/* The same, where it is said of memory that is there. */
static int hold(enum wish wish, char *memory)
{
	int ends[2];
	struct iovec pinned = {memory, PINNED_PAGES * PAGE};
	if (wish == LOCKED)
		return mlock(memory, size);
	if (wish == PINNED)
		return pipe(ends) || vmsplice(ends[1], &pinned, 1, 0) < (ssize_t)PAGE;
	return 0;
}

static void live(enum wish wish)
{
	prctl(PR_SET_PDEATHSIG, 9);
	prctl(PR_SET_NAME, names[wish]);
	prefer(MPOL_PREFERRED, 1UL << node);
	char *memory = map(wish);
	if (memory == MAP_FAILED || tell(wish, memory)) {
		printf("%s absent\n", names[wish]);
		exit(0);
	}
	for (size_t at = 0; at < size; at += PAGE)
		memory[at] = wish == MERGED ? 7 : (char)(at / PAGE + 1);
	if (hold(wish, memory)) {
		printf("%s absent\n", names[wish]);
		exit(0);
	}
	prefer(MPOL_DEFAULT, 0);
	/* a child that only reads, so that every page stays shared */
	int shared = wish == SHARED && fork() == 0;
	if (!shared) {
		printf("%s %d %lx\n", names[wish], getpid(), (unsigned long)memory);
		fflush(stdout);
	}
	for (;;) {
		if (wish == SHARED || wish == MERGED)
			for (size_t at = 0; at < size; at += PAGE)
				(void)((volatile char *)memory)[at];
		else
			use(memory);
		usleep(50000);
	}
}

static void *go_on(void *memory)
{
	for (;;) {
		use(memory);
		usleep(50000);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int option, zombie = 0;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's': size = strtoul(optarg, NULL, 0) << 20; break;
		case 'n': node = atoi(optarg); break;
		case 'z': zombie = 1; break;
		default: fprintf(stderr, "usage: owner [--size MIB] [--node NUMBER] [--zombie]\n"); return 2;
		}
	}
	if (zombie) {
		pthread_t thread;
		prefer(MPOL_PREFERRED, 1UL << node);
		char *memory = map(PLAIN);
		if (memory == MAP_FAILED || pthread_create(&thread, NULL, go_on, memory))
			return 1;
		pthread_exit(NULL);
	}
	for (enum wish wish = 0; wish < WISHES; wish++) {
		pid_t child = fork();
		if (child < 0)
			perror("owner: fork");
		if (child == 0)
			live(wish);
	}
	for (;;)
		pause();
}
