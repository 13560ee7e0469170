/* source_powercap.c - CPU packages by the kernel's powercap tree (RAPL, Intel and AMD).
 *
 * Top-level zones called "package-N" are taken, and their "dram" children beside them. Core and uncore are parts of
 * their package and are left alone; psys overlaps with everything. The counter wraps at max_energy_range_uj, in under
 * four minutes on a large EPYC: it is unwrapped here, so what leaves this file only ever grows. Where nobody has read
 * it for so long that it may have wrapped twice (a stopped process, a permission that was taken away), a new epoch
 * begins. AMD's zones bear the same names; those of "intel-rapl-mmio" are the same packages once more, by another path,
 * and are left alone too.
 *
 * A zone that could not be read is opened again before the next attempt: a module that is loaded again brings a new
 * file, and with it a new epoch; a permission that is given shows at once. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "source.h"

enum { MAX_ZONES = 32 };

static const int64_t WRAPS_UNSEEN_NS = 60000000000; /* the smallest range, 65.5 kJ, at 1.1 kW */

struct zone {
    char path[PATH_MAX]; /* of energy_uj */
    int descriptor;      /* of it, or -1 */
    bool failed;         /* the latest read did */
    dev_t filesystem;    /* which file the values so far came from; 0 before the first */
    ino_t file;
    int64_t range_uj;
    int64_t last_uj; /* as read; -1 before the first read */
    int64_t last_ns; /* when */
    int64_t total_uj;
};

struct powercap {
    struct zone zones[MAX_ZONES];
    struct llmpower_device devices[MAX_ZONES];
    uint32_t epochs[MAX_ZONES];
    uint32_t count;
};

/* The first line of root/zone/file without its newline; the number of characters, or a negative errno. */
static int read_line(const char *root, const char *zone, const char *file, char *line, size_t size) {
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s/%s", root, zone, file);
    if (length < 0 || (size_t)length >= sizeof path) return -ENAMETOOLONG;
    FILE *stream = fopen(path, "re");
    if (!stream) return -errno;
    int read = fgets(line, (int)size, stream) ? (int)strcspn(line, "\n") : -EIO;
    if (read >= 0) line[read] = '\0';
    fclose(stream);
    return read;
}

/* Open the zone's counter file, again if it was open. 0 or a negative errno: -EACCES where only root may read. */
static int32_t open_counter(struct powercap *powercap, uint32_t device) {
    struct zone *zone = &powercap->zones[device];
    struct stat status;
    if (zone->descriptor >= 0) close(zone->descriptor);
    zone->descriptor = open(zone->path, O_RDONLY | O_CLOEXEC);
    if (zone->descriptor < 0 || fstat(zone->descriptor, &status)) return -errno;
    if (zone->file == status.st_ino && zone->filesystem == status.st_dev) return 0;
    if (zone->file) {
        powercap->epochs[device]++; /* another file: its counter has started over */
        zone->last_uj = -1;
    }
    zone->file = status.st_ino;
    zone->filesystem = status.st_dev;
    return 0;
}

static int32_t read_counter(struct zone *zone, int64_t *now_uj) {
    char text[32], *end;
    ssize_t length = pread(zone->descriptor, text, sizeof text - 1, 0);
    if (length <= 0) return length < 0 ? -errno : -EIO;
    text[length] = '\0';
    errno = 0;
    *now_uj = strtoll(text, &end, 10);
    return end == text || errno || *now_uj < 0 ? -EINVAL : 0;
}

static int32_t powercap_read(void *state, uint32_t device, uint32_t field, int64_t *value) {
    struct powercap *powercap = state;
    struct zone *zone = &powercap->zones[device];
    int64_t now_uj = 0, now_ns = llmpower_monotonic_ns();
    (void)field; /* a zone has one: its counter */
    int32_t status = zone->failed ? open_counter(powercap, device) : 0;
    if (!status) status = read_counter(zone, &now_uj);
    zone->failed = status != 0;
    if (status) return status;
    if (zone->last_uj >= 0) {
        int64_t step = now_uj - zone->last_uj;
        if (step < 0) step += zone->range_uj; /* it wrapped */
        if (step < 0 || now_ns - zone->last_ns > WRAPS_UNSEEN_NS)
            powercap->epochs[device]++; /* by more than its range, or nobody knows how often: it has started over */
        else
            zone->total_uj += step;
    }
    zone->last_uj = now_uj;
    zone->last_ns = now_ns;
    *value = zone->total_uj;
    return 0;
}

static void powercap_close(void *state, bool forked) {
    struct powercap *powercap = state;
    (void)forked; /* descriptors are the child's own */
    for (uint32_t i = 0; i < powercap->count; i++)
        if (powercap->zones[i].descriptor >= 0) close(powercap->zones[i].descriptor);
    free(powercap);
}

/* The kind of a zone by the name that the kernel gives it; -1 for one that we do not take. */
static int zone_kind(const char *name) {
    if (strncmp(name, "package-", 8) == 0) return LLMPOWER_CPU_PACKAGE;
    if (strcmp(name, "dram") == 0) return LLMPOWER_DRAM;
    return -1;
}

/* Take a zone if it is one of ours. False when there is no room for it. */
static bool add_zone(struct powercap *powercap, const char *root, const char *entry) {
    char name[64], range[32];
    if (read_line(root, entry, "name", name, sizeof name) < 0) return true;
    int kind = zone_kind(name);
    if (kind < 0) return true;
    if (powercap->count == MAX_ZONES) return false;

    struct zone *zone = &powercap->zones[powercap->count];
    struct llmpower_device *info = &powercap->devices[powercap->count];
    *zone = (struct zone){.descriptor = -1, .last_uj = -1};
    if (read_line(root, entry, "max_energy_range_uj", range, sizeof range) > 0)
        zone->range_uj = strtoll(range, NULL, 10);
    int length = snprintf(zone->path, sizeof zone->path, "%s/%s/energy_uj", root, entry);
    if (length < 0 || (size_t)length >= sizeof zone->path) return true;
    zone->failed = open_counter(powercap, powercap->count) != 0;

    *info = (struct llmpower_device){.kind = kind, .number = -1, .fields = 1u << LLMPOWER_ENERGY};
    snprintf(info->uuid, sizeof info->uuid, "%.80s", entry); /* intel-rapl:0 names a zone as a UUID names a GPU */
    snprintf(info->name, sizeof info->name, "%.63s", name);
    powercap->count++;
    return true;
}

static int is_zone(const struct dirent *entry) { return strncmp(entry->d_name, "intel-rapl:", 11) == 0; }

int source_powercap_open(struct power_source *source, const char *root, char *error, size_t error_size) {
    struct powercap *powercap = calloc(1, sizeof *powercap);
    if (!powercap) {
        snprintf(error, error_size, "out of memory");
        return LLMPOWER_NO_MEMORY;
    }
    struct dirent **entries;
    /* The class directory links every zone by its full name, parents and children side by side. */
    int found = scandir(root, &entries, is_zone, alphasort);
    bool room = true;
    for (int i = 0; i < found; i++) {
        room = room && add_zone(powercap, root, entries[i]->d_name);
        free(entries[i]);
    }
    if (found >= 0) free(entries);
    if (!room) {
        powercap_close(powercap, false);
        snprintf(error, error_size, "more than %d RAPL zones in %s", MAX_ZONES, root);
        return LLMPOWER_TOO_MANY;
    }
    *source = (struct power_source){.read = powercap_read,
                                    .close = powercap_close,
                                    .state = powercap,
                                    .device_count = powercap->count,
                                    .devices = powercap->devices,
                                    .epochs = powercap->epochs};
    return 0;
}
