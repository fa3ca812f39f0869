/*
 * A process with a memory access distribution that it knows exactly, and can therefore say exactly how good
 * the placement of its pages is:
 *
 *     hit   = sum over pages of P(access to the page) x (1 if the page is on a DRAM node now)
 *     ideal = the same for the best placement that fits into the DRAM that the process holds now
 *
 * The placement is read with move_pages(2) in query mode. One JSON line a report, on standard output.
 *
 * Each report compares the placement with the one before: `went_up` and `went_down` count pages seen to have
 * changed sides, `bounced` those that went down within 60 s of going up. What moves to and fro between two
 * reports is not seen; the kernel's counters have it.
 *
 * --scan reads one word of every page in address order, again and again, at the speed asked for. It touches
 * all pages equally often, so it changes neither their order nor the best placement; `hit` and `ideal` are
 * those of the other accesses alone, and the pages read are counted as `scanned`.
 *
 * `hot_huge` is the share of the hot clusters' pages that are mapped by huge pages, null where the kernel
 * cannot say (PAGEMAP_SCAN is 6.7 and later) or nothing is hot (--zipf).
 * Built by the testbed with `cc -O2 -static -pthread`, and run in the guest.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define QUERY 16384
#define BOUNCE_SECONDS 60

/* linux/fs.h of 6.7, which the headers of Debian 12 do not have */
struct region {
	uint64_t start, end, categories;
};
struct scan_argument {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_PAGEMAP _IOWR('f', 16, struct scan_argument)
#define IS_HUGE (1UL << 6)

static size_t size_mib = 2400, hot_mib = 400, cluster_kib = 64;
static double hot_share = 0.9, zipf = 0, report_every = 5, phase_every = 0, duration = 0, scan_rate = 0;
static int threads = 1, huge = 0;
static uint64_t seed = 1;
static unsigned long dram_nodes = 1;

static char *memory;
static size_t pages, clusters, pages_per_cluster;
static double *probability;   /* of an access to the cluster */
static double *alias_cut;     /* Walker's alias method: one random number picks a cluster */
static uint32_t *alias_other;
static double *ordered;       /* probability, descending */
static uint8_t *hot_cluster;
static uint8_t *side;         /* of each page at the last report: 0 unknown, 1 slow, 2 DRAM */
static float *up_at;          /* when it was seen to have gone up, in seconds since the start; 0 never */
static uint64_t went_up, went_down, bounced;
static _Atomic uint64_t accesses, scanned;
static atomic_int stop;
static pthread_rwlock_t distribution = PTHREAD_RWLOCK_INITIALIZER;

static uint64_t next_random(uint64_t *state)
{
	/* splitmix64, Steele et al. 2014 */
	uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);
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

static int descending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? 1 : x > y ? -1 : 0;
}

/* Which clusters are hot (or which rank each has, with --zipf) is drawn anew at each phase. */
static void draw_distribution(uint64_t *random)
{
	uint32_t *rank = malloc(clusters * sizeof *rank);
	for (size_t i = 0; i < clusters; i++)
		rank[i] = i;
	for (size_t i = clusters - 1; i > 0; i--) {
		size_t j = next_random(random) % (i + 1);
		uint32_t swap = rank[i];
		rank[i] = rank[j];
		rank[j] = swap;
	}
	size_t hot = hot_mib * 1024 / cluster_kib;
	double sum = 0;
	for (size_t i = 0; i < clusters; i++) {
		if (zipf > 0)
			probability[i] = 1 / pow(rank[i] + 1, zipf);
		else
			probability[i] = (1 - hot_share) / clusters + (rank[i] < hot ? hot_share / hot : 0);
		sum += probability[i];
		hot_cluster[i] = !(zipf > 0) && rank[i] < hot;
	}
	uint32_t *small = malloc(clusters * sizeof *small), *large = malloc(clusters * sizeof *large);
	size_t n_small = 0, n_large = 0;
	for (size_t i = 0; i < clusters; i++) {
		probability[i] /= sum;
		ordered[i] = probability[i];
		alias_cut[i] = probability[i] * clusters;
		alias_other[i] = i;
		if (alias_cut[i] < 1)
			small[n_small++] = i;
		else
			large[n_large++] = i;
	}
	while (n_small && n_large) {
		uint32_t s = small[--n_small], l = large[n_large - 1];
		alias_other[s] = l;
		alias_cut[l] -= 1 - alias_cut[s];
		if (alias_cut[l] < 1) {
			n_large--;
			small[n_small++] = l;
		}
	}
	while (n_small)
		alias_cut[small[--n_small]] = 1;
	while (n_large)
		alias_cut[large[--n_large]] = 1;
	qsort(ordered, clusters, sizeof *ordered, descending);
	free(rank);
	free(small);
	free(large);
}

static void *access_memory(void *argument)
{
	uint64_t random = seed + 1000 * (uintptr_t)argument + 17, sum = 0;
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		pthread_rwlock_rdlock(&distribution);
		for (int i = 0; i < 1024; i++) {
			uint64_t a = next_random(&random), b = next_random(&random);
			size_t cluster = (a >> 32) * clusters >> 32;
			if ((a & 0xffffffff) / 4294967296.0 >= alias_cut[cluster])
				cluster = alias_other[cluster];
			size_t page = cluster * pages_per_cluster + (b >> 32) % pages_per_cluster;
			volatile uint64_t *word = (uint64_t *)(memory + page * PAGE) + (b & 511);
			if (b & 512)
				sum += *word;
			else
				*word = b;
		}
		pthread_rwlock_unlock(&distribution);
		atomic_fetch_add_explicit(&accesses, 1024, memory_order_relaxed);
	}
	return (void *)(uintptr_t)sum;
}

static void *scan_memory(void *argument)
{
	double begun = now();
	uint64_t done = 0, sum = 0;
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		uint64_t due = (now() - begun) * scan_rate * (1 << 20) / PAGE;
		for (; done < due; done++)
			sum += *(volatile uint64_t *)(memory + done % pages * PAGE);
		atomic_store_explicit(&scanned, done, memory_order_relaxed);
		usleep(10000);
	}
	return (void *)(uintptr_t)(sum + !!argument);
}

/* The share of the hot pages that huge pages map, negative when it is not known. */
static double hot_in_huge_pages(void)
{
	static struct region found[1024];
	size_t hot = 0, in_huge = 0;
	for (size_t i = 0; i < clusters; i++)
		hot += hot_cluster[i] ? pages_per_cluster : 0;
	int file = open("/proc/self/pagemap", O_RDONLY);
	if (file < 0 || !hot) {
		if (file >= 0)
			close(file);
		return -1;
	}
	uint64_t from = (uintptr_t)memory, end = from + pages * PAGE;
	while (from < end) {
		struct scan_argument scan = {
			.size = sizeof scan, .start = from, .end = end, .vec = (uintptr_t)found,
			.vec_len = sizeof found / sizeof *found, .category_mask = IS_HUGE, .return_mask = IS_HUGE,
		};
		int n = ioctl(file, SCAN_PAGEMAP, &scan);
		if (n < 0) {
			close(file);
			return -1;
		}
		for (int i = 0; i < n; i++)
			for (uint64_t at = found[i].start; at < found[i].end; at += PAGE) {
				size_t cluster = (at - (uintptr_t)memory) / PAGE / pages_per_cluster;
				in_huge += cluster < clusters && hot_cluster[cluster];
			}
		from = scan.walk_end;
	}
	close(file);
	return (double)in_huge / hot;
}

static void follow(size_t page, int in_dram_now, double elapsed)
{
	uint8_t here = in_dram_now ? 2 : 1;
	if (side[page] == 1 && here == 2) {
		went_up++;
		up_at[page] = elapsed;
	} else if (side[page] == 2 && here == 1) {
		went_down++;
		bounced += up_at[page] > 0 && elapsed - up_at[page] <= BOUNCE_SECONDS;
	}
	side[page] = here;
}

static void report(double started, double phase_began, int phase)
{
	static void *address[QUERY];
	static int status[QUERY];
	size_t in_dram = 0, absent = 0;
	double hit = 0, ideal = 0;
	double begun = now();
	for (size_t done = 0; done < pages; done += QUERY) {
		size_t n = pages - done < QUERY ? pages - done : QUERY;
		for (size_t i = 0; i < n; i++)
			address[i] = memory + (done + i) * PAGE;
		if (syscall(SYS_move_pages, 0, n, address, NULL, status, 0)) {
			perror("workload: move_pages");
			exit(1);
		}
		for (size_t i = 0; i < n; i++) {
			if (status[i] < 0)
				absent++;
			else
				follow(done + i, dram_nodes >> status[i] & 1, begun - started + 1);
			if (status[i] >= 0 && dram_nodes >> status[i] & 1) {
				in_dram++;
				hit += probability[(done + i) / pages_per_cluster] / pages_per_cluster;
			}
		}
	}
	size_t left = in_dram;
	for (size_t i = 0; i < clusters && left; i++) {
		size_t n = left < pages_per_cluster ? left : pages_per_cluster;
		ideal += ordered[i] * n / pages_per_cluster;
		left -= n;
	}
	double in_huge = huge ? hot_in_huge_pages() : -1;
	char hot_huge[32] = "null";
	if (in_huge >= 0)
		snprintf(hot_huge, sizeof hot_huge, "%.4f", in_huge);
	printf("{\"elapsed\": %.2f, \"monotonic\": %.2f, \"hit\": %.5f, \"ideal\": %.5f, \"dram_pages\": %zu, "
	       "\"pages\": %zu, \"absent\": %zu, \"accesses\": %lu, \"scanned\": %lu, \"phase\": %d, "
	       "\"phase_began\": %.2f, \"went_up\": %lu, \"went_down\": %lu, \"bounced\": %lu, "
	       "\"hot_huge\": %s, \"query_seconds\": %.2f}\n",
	       begun - started, begun, hit, ideal, in_dram, pages, absent, (unsigned long)atomic_load(&accesses),
	       (unsigned long)atomic_load(&scanned), phase, phase_began, (unsigned long)went_up,
	       (unsigned long)went_down, (unsigned long)bounced, hot_huge, now() - begun);
	fflush(stdout);
}

static const struct option options[] = {
	{"size", 1, 0, 's'}, {"hot", 1, 0, 'h'}, {"cluster", 1, 0, 'c'}, {"share", 1, 0, 'p'},
	{"zipf", 1, 0, 'z'}, {"threads", 1, 0, 't'}, {"huge", 0, 0, 'H'}, {"seed", 1, 0, 'r'},
	{"report", 1, 0, 'i'}, {"phase", 1, 0, 'P'}, {"duration", 1, 0, 'd'}, {"dram-nodes", 1, 0, 'n'},
	{"scan", 1, 0, 'S'}, {0},
};

int main(int argc, char **argv)
{
	int option;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's': size_mib = atol(optarg); break;
		case 'h': hot_mib = atol(optarg); break;
		case 'c': cluster_kib = atol(optarg); break;
		case 'p': hot_share = atof(optarg); break;
		case 'z': zipf = atof(optarg); break;
		case 't': threads = atoi(optarg); break;
		case 'H': huge = 1; break;
		case 'r': seed = atol(optarg); break;
		case 'i': report_every = atof(optarg); break;
		case 'P': phase_every = atof(optarg); break;
		case 'd': duration = atof(optarg); break;
		case 'S': scan_rate = atof(optarg); break;
		case 'n': dram_nodes = strtoul(optarg, NULL, 0); break;
		default:
			fprintf(stderr, "usage: workload [--size MIB] [--hot MIB] [--cluster KIB] [--share P] "
				"[--zipf S] [--threads N] [--huge] [--seed N] [--report SECONDS] "
				"[--phase SECONDS] [--duration SECONDS] [--scan MIB_PER_SECOND] "
				"[--dram-nodes MASK]\n");
			return 2;
		}
	}
	size_t bytes = size_mib << 20, huge_page = 2UL << 20;
	pages = bytes / PAGE;
	pages_per_cluster = cluster_kib * 1024 / PAGE;
	clusters = pages / pages_per_cluster;
	char *mapped = mmap(NULL, bytes + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mapped == MAP_FAILED) {
		perror("workload: mmap");
		return 1;
	}
	memory = (char *)(((uintptr_t)mapped + huge_page - 1) & ~(huge_page - 1));
	/* with --huge the system's own setting decides, as for a program that never asks */
	if (!huge && madvise(memory, bytes, MADV_NOHUGEPAGE) && errno != EINVAL)
		perror("workload: madvise");
	probability = malloc(clusters * sizeof *probability);
	ordered = malloc(clusters * sizeof *ordered);
	alias_cut = malloc(clusters * sizeof *alias_cut);
	alias_other = malloc(clusters * sizeof *alias_other);
	hot_cluster = malloc(clusters);
	side = calloc(pages, 1);
	up_at = calloc(pages, sizeof *up_at);
	uint64_t random = seed;
	draw_distribution(&random);
	for (size_t i = 0; i < pages; i++)
		*(uint64_t *)(memory + i * PAGE) = i;

	double started = now(), next_report = started, next_phase = started + phase_every, phase_began = started;
	int phase = 0;
	pthread_t thread[64], scanner;
	if (threads > 64)
		threads = 64;
	for (int i = 0; i < threads; i++)
		pthread_create(&thread[i], NULL, access_memory, (void *)(uintptr_t)i);
	if (scan_rate > 0)
		pthread_create(&scanner, NULL, scan_memory, NULL);
	while (!duration || now() - started < duration) {
		if (now() >= next_report) {
			report(started, phase_began, phase);
			next_report += report_every;
			if (next_report < now())
				next_report = now() + report_every / 2;
		}
		if (phase_every && now() >= next_phase) {
			pthread_rwlock_wrlock(&distribution);
			draw_distribution(&random);
			pthread_rwlock_unlock(&distribution);
			phase_began = now();
			next_phase += phase_every;
			phase++;
		}
		usleep(50000);
	}
	report(started, phase_began, phase);
	atomic_store(&stop, 1);
	for (int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	if (scan_rate > 0)
		pthread_join(scanner, NULL);
	return 0;
}
