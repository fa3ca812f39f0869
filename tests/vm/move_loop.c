/*
 * The plain way to move pages, as the yardstick for a mover: one call of move_pages(2) after another.
 *
 *   move_loop hold MIB                              touch memory in small pages, say where it is, and wait
 *   move_loop move PID ADDRESS PAGES NODE BATCH     move it in batches of BATCH pages
 *   move_loop where PID ADDRESS PAGES NODE          count the pages on NODE
 *
 * Prints one JSON line. `moved` is what a query finds on the node afterwards, `seconds` is without that query.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MOVE 2

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int hold(size_t bytes)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		perror("move_loop: mmap");
		return 1;
	}
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	memset(memory, 1, bytes);
	printf("{\"pid\": %d, \"address\": %lu, \"pages\": %lu}\n", getpid(), (unsigned long)memory, bytes / PAGE);
	fflush(stdout);
	for (;;)
		pause();
}

static long on_node(int pid, void **address, int *status, size_t pages, int node)
{
	long found = 0;
	if (syscall(SYS_move_pages, pid, pages, address, NULL, status, 0)) {
		perror("move_loop: query");
		exit(1);
	}
	for (size_t i = 0; i < pages; i++)
		found += status[i] == node;
	return found;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "hold"))
		return hold(strtoul(argv[2], NULL, 0) << 20);
	int move = argc == 7 && !strcmp(argv[1], "move");
	if (!move && !(argc == 6 && !strcmp(argv[1], "where"))) {
		fprintf(stderr, "usage: move_loop hold MIB | move PID ADDRESS PAGES NODE BATCH | "
			"where PID ADDRESS PAGES NODE\n");
		return 2;
	}
	int pid = atoi(argv[2]), node = atoi(argv[5]);
	size_t start = strtoul(argv[3], NULL, 0), pages = strtoul(argv[4], NULL, 0);
	size_t batch = move ? strtoul(argv[6], NULL, 0) : pages;
	void **address = malloc(pages * sizeof *address);
	int *status = malloc(pages * sizeof *status), *nodes = malloc(pages * sizeof *nodes);
	for (size_t i = 0; i < pages; i++) {
		address[i] = (void *)(start + i * PAGE);
		nodes[i] = node;
		status[i] = -1;
	}
	double began = now();
	for (size_t done = 0; move && done < pages; done += batch) {
		size_t n = pages - done < batch ? pages - done : batch;
		if (syscall(SYS_move_pages, pid, n, address + done, nodes + done, status + done, MOVE) < 0) {
			perror("move_loop: move_pages");
			return 1;
		}
	}
	double seconds = now() - began;
	printf("{\"moved\": %ld, \"seconds\": %.6f}\n", on_node(pid, address, status, pages, node), seconds);
	return 0;
}
