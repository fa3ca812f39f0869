/*
 * Takes memory at a given speed, gives it all back when it has --size of it, and starts again: the pressure that
 * a growing program puts on DRAM. Prints one JSON line at its end; `longest` is the most seconds that 2 MiB took.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define CHUNK (2UL << 20)

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static const struct option options[] = {{"rate", 1, 0, 'r'}, {"size", 1, 0, 's'}, {"duration", 1, 0, 'd'}, {0}};

int main(int argc, char **argv)
{
	double rate = 300e6, duration = 60, longest = 0;
	size_t size = 1500UL << 20, held = 0, taken = 0, rounds = 0;
	int option;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'r': rate = atof(optarg) * 1e6; break;
		case 's': size = strtoul(optarg, NULL, 0) << 20; break;
		case 'd': duration = atof(optarg); break;
		default:
			fprintf(stderr, "usage: allocator [--rate MB_PER_SECOND] [--size MIB] [--duration SECONDS]\n");
			return 2;
		}
	}
	char *memory = NULL;
	double began = now();
	while (now() - began < duration) {
		if (!memory) {
			memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (memory == MAP_FAILED) {
				perror("allocator: mmap");
				return 1;
			}
		}
		double chunk_began = now();
		for (size_t i = 0; i < CHUNK; i += PAGE)
			memory[held + i] = 1;
		double took = now() - chunk_began;
		longest = took > longest ? took : longest;
		held += CHUNK;
		taken += CHUNK;
		if (held + CHUNK > size) {
			munmap(memory, size);
			memory = NULL;
			held = 0;
			rounds++;
		}
		double ahead = taken / rate - (now() - began);
		if (ahead > 0)
			usleep(ahead * 1e6);
	}
	double seconds = now() - began;
	printf("{\"bytes\": %zu, \"seconds\": %.3f, \"rate\": %.1f, \"rounds\": %zu, \"longest\": %.3f}\n", taken, seconds,
	       taken / seconds / 1e6, rounds, longest);
	return 0;
}
