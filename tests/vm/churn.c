/*
 * Keeps --children processes of --size MiB alive, each for a random time of up to --seconds, and a new one for each
 * that ends. They call themselves by --name.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct option options[] = {
	{"children", 1, 0, 'c'}, {"size", 1, 0, 's'}, {"seconds", 1, 0, 't'}, {"name", 1, 0, 'n'}, {0}};

static void live(const char *name, size_t size, double seconds)
{
	prctl(PR_SET_NAME, name);
	prctl(PR_SET_PDEATHSIG, 15);
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		_exit(1);
	memset(memory, 1, size);
	usleep(seconds * 1e6);
	_exit(0);
}

int main(int argc, char **argv)
{
	int children = 10, option;
	size_t size = 2UL << 20;
	double seconds = 20;
	const char *name = "churn";
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'c': children = atoi(optarg); break;
		case 's': size = strtoul(optarg, NULL, 0) << 20; break;
		case 't': seconds = atof(optarg); break;
		case 'n': name = optarg; break;
		default:
			fprintf(stderr, "usage: churn [--children N] [--size MIB] [--seconds N] [--name NAME]\n");
			return 2;
		}
	}
	srand(getpid());
	for (int alive = 0;; alive--) {
		for (; alive < children; alive++) {
			double lives = seconds * (0.2 + 0.8 * rand() / RAND_MAX);
			pid_t child = fork();
			if (child < 0)
				perror("churn: fork");
			if (child == 0)
				live(name, size, lives);
		}
		wait(NULL);
	}
}
