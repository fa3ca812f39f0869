/*
 * Memory of four kinds whose every byte is known, so that a page which was moved wrongly shows: anonymous with
 * small and with huge pages, shared between two processes, and private copies of a parent's pages made on write.
 *
 * Each page holds a pattern made from its key. The keys lie in memory of their own kind and may be moved as
 * well; a wrong key shows as a wrong page. Each page belongs to one thread of one process, so nothing is locked.
 * Accesses go to a hot tenth of each area nine times in ten, and the tenth changes every --phase seconds, so
 * that a tierer has reason to move without end. One JSON line a report from the parent; the last one follows a
 * check of every page by each process. Exit code 1 when a byte was wrong.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define WORDS (PAGE / 8)
#define HUGE_PAGE (2UL << 20)
#define PROCESSES 2

enum kind { SMALL, HUGE, SHARED, COPIED, KINDS };
static const char *const names[KINDS] = {"small", "huge", "shared", "copied"};

struct area {
	char *memory;
	uint64_t *key;
	size_t pages;
};

struct counts {
	_Atomic uint64_t checked, rewritten, bad_bytes[KINDS];
	_Atomic int stop;
};

static size_t size_mib = 1600;
static double duration = 60, report_every = 5, phase_every = 10;
static int threads = 1;
static struct area areas[KINDS];
static struct counts *counts;
static int process;

static uint64_t mix(uint64_t z)
{
	/* splitmix64, Steele et al. 2014 */
	z += 0x9e3779b97f4a7c15ULL;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *map(size_t bytes, int flags, int advice)
{
	char *mapped = mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	if (mapped == MAP_FAILED) {
		perror("integrity: mmap");
		exit(2);
	}
	char *aligned = (char *)(((uintptr_t)mapped + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	if (advice)
		madvise(aligned, bytes, advice);
	return aligned;
}

static void fill(struct area *area, size_t page, uint64_t key)
{
	uint64_t *word = (uint64_t *)(area->memory + page * PAGE);
	area->key[page] = key;
	for (size_t i = 0; i < WORDS; i++)
		word[i] = mix(key + i);
}

static void check(enum kind kind, size_t page)
{
	struct area *area = &areas[kind];
	const uint64_t *word = (const uint64_t *)(area->memory + page * PAGE);
	uint64_t bad = 0;
	for (size_t i = 0; i < WORDS; i++)
		for (uint64_t wrong = word[i] ^ mix(area->key[page] + i); wrong; wrong >>= 8)
			bad += !!(wrong & 255);
	if (bad)
		atomic_fetch_add(&counts->bad_bytes[kind], bad);
	atomic_fetch_add_explicit(&counts->checked, 1, memory_order_relaxed);
}

/* The n-th of the pages that belong to this thread; shared ones are divided among the processes as well. */
static size_t own(enum kind kind, int thread, size_t n)
{
	size_t owners = kind == SHARED ? PROCESSES * threads : threads;
	size_t owner = kind == SHARED ? process * threads + thread : thread;
	size_t mine = areas[kind].pages / owners;
	return n % mine * owners + owner;
}

static void *work(void *argument)
{
	int thread = (uintptr_t)argument;
	uint64_t random = mix(1000 * process + thread);
	double started = now();
	while (!atomic_load_explicit(&counts->stop, memory_order_relaxed)) {
		uint64_t phase = (now() - started) / phase_every;
		for (int i = 0; i < 64; i++) {
			uint64_t a = random = mix(random), b = random = mix(random);
			enum kind kind = a % KINDS;
			size_t pages = areas[kind].pages, tenth = pages / 10;
			size_t n = (a >> 8) % 10 ? mix(phase * KINDS + kind) % pages + b % tenth : b % pages;
			size_t page = own(kind, thread, n);
			check(kind, page);
			if (a >> 32 & 1) {
				fill(&areas[kind], page, b ^ (uint64_t)process << 63);
				atomic_fetch_add_explicit(&counts->rewritten, 1, memory_order_relaxed);
			}
		}
	}
	for (enum kind kind = 0; kind < KINDS; kind++) {
		size_t owners = kind == SHARED ? PROCESSES * threads : threads;
		for (size_t n = 0; n < areas[kind].pages / owners; n++)
			check(kind, own(kind, thread, n));
	}
	return NULL;
}

static void run_threads(pthread_t *thread)
{
	for (int i = 0; i < threads; i++)
		pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)i);
}

static void report(double started, int final)
{
	uint64_t total = 0;
	printf("{\"elapsed\": %.2f, \"monotonic\": %.2f, \"final\": %s, \"checked\": %lu, \"rewritten\": %lu",
	       now() - started, now(), final ? "true" : "false", (unsigned long)counts->checked,
	       (unsigned long)counts->rewritten);
	for (int kind = 0; kind < KINDS; kind++) {
		total += counts->bad_bytes[kind];
		printf(", \"%s\": %lu", names[kind], (unsigned long)counts->bad_bytes[kind]);
	}
	printf(", \"bad_bytes\": %lu}\n", (unsigned long)total);
	fflush(stdout);
}

static const struct option options[] = {
	{"size", 1, 0, 's'}, {"duration", 1, 0, 'd'}, {"report", 1, 0, 'i'}, {"phase", 1, 0, 'P'},
	{"threads", 1, 0, 't'}, {"spoil", 0, 0, 'x'}, {0},
};

int main(int argc, char **argv)
{
	int option, spoil = 0;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's': size_mib = atol(optarg); break;
		case 'd': duration = atof(optarg); break;
		case 'i': report_every = atof(optarg); break;
		case 'P': phase_every = atof(optarg); break;
		case 't': threads = atoi(optarg); break;
		case 'x': spoil = 1; break; /* one wrong byte, to see that it is found */
		default:
			fprintf(stderr, "usage: integrity [--size MIB] [--duration SECONDS] [--report SECONDS] "
				"[--phase SECONDS] [--threads N] [--spoil]\n");
			return 2;
		}
	}
	if (threads < 1 || threads > 16)
		threads = 1;
	/* three eighths each of small and huge pages, an eighth each of shared and copied ones */
	const int eighths[KINDS] = {3, 3, 1, 1};
	counts = map(sizeof *counts, MAP_SHARED, 0);
	for (enum kind kind = 0; kind < KINDS; kind++) {
		int flags = kind == SHARED ? MAP_SHARED : MAP_PRIVATE;
		areas[kind].pages = size_mib * eighths[kind] / 8 * ((1 << 20) / PAGE);
		areas[kind].memory = map(areas[kind].pages * PAGE, flags,
					 kind == SMALL ? MADV_NOHUGEPAGE : kind == HUGE ? MADV_HUGEPAGE : 0);
		areas[kind].key = map(areas[kind].pages * sizeof(uint64_t), flags, 0);
	}
	/* only what the two processes are to have in common is touched before the fork */
	for (size_t page = 0; page < areas[SHARED].pages; page++)
		fill(&areas[SHARED], page, mix(page));
	for (size_t page = 0; page < areas[COPIED].pages; page++)
		fill(&areas[COPIED], page, mix(page + 1));
	pid_t child = fork();
	process = child == 0;
	for (enum kind kind = SMALL; kind <= HUGE; kind++) {
		/* the parent's are three times the child's */
		areas[kind].pages = process ? areas[kind].pages / 4 : areas[kind].pages * 3 / 4;
		for (size_t page = 0; page < areas[kind].pages; page++)
			fill(&areas[kind], page, mix(page * KINDS + kind + process));
	}
	if (spoil && !process)
		areas[HUGE].memory[areas[HUGE].pages * PAGE / 2 + 5] ^= 64;
	pthread_t thread[16];
	double started = now();
	run_threads(thread);
	if (process) {
		for (int i = 0; i < threads; i++)
			pthread_join(thread[i], NULL);
		_exit(0);
	}
	while (now() - started < duration) {
		report(started, 0);
		usleep(report_every * 1e6);
	}
	atomic_store(&counts->stop, 1);
	for (int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	int status = 0;
	waitpid(child, &status, 0);
	report(started, WIFEXITED(status) && WEXITSTATUS(status) == 0);
	for (int kind = 0; kind < KINDS; kind++)
		if (counts->bad_bytes[kind])
			return 1;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 2;
}
