/* test_powercap.c - a RAPL counter that wraps while somebody looks, and while nobody does. The clock is the test's. */
#include <sys/stat.h>

#include "../source.h"
#include "check.h"

static const int64_t SECOND = 1000000000;
static int64_t clock_ns = 1000000000;

int64_t llmpower_monotonic_ns(void) { return clock_ns; }

static void write_file(const char *zone, const char *name, const char *text) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", zone, name);
    FILE *file = fopen(path, "w");
    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static int64_t read_uj(struct power_source *source) {
    int64_t value = 0;
    CHECK(source->read(source->state, 0, LLMPOWER_ENERGY, &value) == 0);
    return value;
}

int main(int argc, char **argv) {
    struct power_source source;
    char zone[2048], error[256];
    CHECK(argc == 2);
    snprintf(zone, sizeof zone, "%s/intel-rapl:0", argv[1]);
    CHECK(mkdir(zone, 0700) == 0);
    write_file(zone, "name", "package-0\n");
    write_file(zone, "max_energy_range_uj", "65532610987\n");
    write_file(zone, "energy_uj", "65532610000\n");
    CHECK(source_powercap_open(&source, argv[1], error, sizeof error) == 0 && source.device_count == 1);

    CHECK(read_uj(&source) == 0);
    clock_ns += 59 * SECOND;
    write_file(zone, "energy_uj", "13\n");
    CHECK(read_uj(&source) == 1000 && source.epochs[0] == 0);

    /* How often it has wrapped in five minutes nobody knows, whether it stands higher or lower now. */
    clock_ns += 300 * SECOND;
    write_file(zone, "energy_uj", "513\n");
    CHECK(read_uj(&source) == 1000 && source.epochs[0] == 1);
    clock_ns += 300 * SECOND;
    write_file(zone, "energy_uj", "3\n");
    CHECK(read_uj(&source) == 1000 && source.epochs[0] == 2);
    clock_ns += SECOND;
    write_file(zone, "energy_uj", "23\n");
    CHECK(read_uj(&source) == 1020 && source.epochs[0] == 2);

    source.close(source.state, false);
    puts("powercap: ok");
    return 0;
}
