/* test_sampler.c - the sampler over the simulated library: start, stop, drain, fork, and every way to fail.
 *
 * Usage: test_sampler LIBNVIDIA_ML DIRECTORY, the directory being writable and empty. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../llmpower.h"
#include "check.h"

static const char *library;
static char error[512];

static void sleep_ms(long milliseconds) {
    struct timespec duration = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&duration, &duration) && errno == EINTR) continue;
}

static struct llmpower_options options_with(const char *nvml_library, const char *powercap_root) {
    return (struct llmpower_options){.nvml_library = nvml_library,
                                     .powercap_root = powercap_root,
                                     .power_interval_ns = 2000000,
                                     .energy_interval_ns = 2000000,
                                     .powercap_interval_ns = 2000000,
                                     .max_read_share = 0.5,
                                     .ring_capacity = 4096};
}

static struct llmpower_sampler *open_or_die(const char *powercap_root) {
    struct llmpower_options options = options_with(library, powercap_root);
    struct llmpower_sampler *sampler = NULL;
    int failure = llmpower_open(&options, &sampler, error, sizeof error);
    if (failure) fprintf(stderr, "%s\n", error);
    CHECK(failure == 0);
    return sampler;
}

static void test_samples_come_in_order(void) {
    static struct llmpower_sample samples[4096];
    setenv("LLMPOWER_SIM_GPUS", "8", 1);
    struct llmpower_sampler *sampler = open_or_die(NULL);
    unsetenv("LLMPOWER_SIM_GPUS");
    CHECK(llmpower_device_count(sampler) == 8);
    CHECK(llmpower_device_at(sampler, 0)->simulated == 1);
    CHECK(llmpower_device_at(sampler, 8) == NULL);
    CHECK(llmpower_start(sampler) == 0);
    sleep_ms(100);
    struct llmpower_statistics statistics;
    llmpower_read_statistics(sampler, &statistics); /* while the thread runs: TSan looks on */
    CHECK(statistics.ticks > 0);
    CHECK(llmpower_stop(sampler) == 0);
    size_t count = llmpower_drain(sampler, samples, 4096);
    CHECK(count > 16);
    for (size_t i = 1; i < count; i++) {
        CHECK(samples[i].before_ns >= samples[i - 1].after_ns);
        CHECK(samples[i].status == 0);
        CHECK(samples[i].device < 8);
    }
    llmpower_close(sampler);
}

static void test_a_thousand_starts(void) {
    struct llmpower_sampler *sampler = open_or_die(NULL);
    for (int i = 0; i < 1000; i++) {
        CHECK(llmpower_start(sampler) == 0);
        CHECK(llmpower_stop(sampler) == 0);
    }
    llmpower_close(sampler);
    for (int i = 0; i < 50; i++) llmpower_close(open_or_die(NULL));
}

static void write_file(const char *directory, const char *name, const char *text) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *stream = fopen(path, "we");
    CHECK(stream);
    fputs(text, stream);
    fclose(stream);
}

static void test_who_computes(const char *directory) {
    static uint32_t pids[LLMPOWER_MAX_PROCESSES];
    static char many[LLMPOWER_MAX_PROCESSES * 8 + 8];
    uint32_t count = 77;
    char path[4096];
    snprintf(path, sizeof path, "%s/processes", directory);
    setenv("LLMPOWER_SIM_PROCESSES", path, 1);
    setenv("LLMPOWER_SIM_GPUS", "2", 1);
    for (int wide = 0; wide < 2; wide++) {
        if (wide) setenv("LLMPOWER_SIM_FAULT", "wide_processes", 1);
        struct llmpower_sampler *sampler = open_or_die(NULL);
        CHECK(llmpower_start(sampler) == 0); /* TSan looks on while both threads use the driver */
        remove(path);
        CHECK(llmpower_processes(sampler, 0, pids, &count) == 0 && count == 0);
        write_file(directory, "processes", "0 11\n1 12\n1 2147483647\n1 12\n");
        CHECK(llmpower_processes(sampler, 0, pids, &count) == 0 && count == 1 && pids[0] == 11);
        CHECK(llmpower_processes(sampler, 1, pids, &count) == 0 && count == 3);
        CHECK(pids[0] == 12 && pids[1] == 2147483647 && pids[2] == 12);
        CHECK(llmpower_processes(sampler, 2, pids, &count) == -ENODEV && count == 3);
        write_file(directory, "processes", "0 11\n0 0\n1 4294967295\n");
        CHECK(llmpower_processes(sampler, 0, pids, &count) == 999 &&
              llmpower_processes(sampler, 1, pids, &count) == 999);
        for (int i = 0; i < LLMPOWER_MAX_PROCESSES; i++) memcpy(many + 6 * i, "0 123\n", 7);
        write_file(directory, "processes", many);
        CHECK(llmpower_processes(sampler, 0, pids, &count) == 0 && count == LLMPOWER_MAX_PROCESSES);
        CHECK(pids[LLMPOWER_MAX_PROCESSES - 1] == 123);
        strcat(many, "0 123\n");
        write_file(directory, "processes", many);
        CHECK(llmpower_processes(sampler, 0, pids, &count) == 7); /* more than anybody has room for */
        pid_t child = fork();
        if (child == 0) {
            bool refused = llmpower_processes(sampler, 0, pids, &count) == -ECHILD;
            llmpower_close(sampler); /* Valgrind asks a child as well for what it has */
            _exit(refused ? 0 : 1);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        llmpower_close(sampler);
    }
    setenv("LLMPOWER_SIM_FAULT", "no_processes@1", 1);
    struct llmpower_sampler *sampler = open_or_die(NULL);
    write_file(directory, "processes", "0 11\n1 12\n");
    CHECK(llmpower_processes(sampler, 0, pids, &count) == 0 && count == 1);
    CHECK(llmpower_processes(sampler, 1, pids, &count) == 3);
    llmpower_close(sampler);
    unsetenv("LLMPOWER_SIM_FAULT");
    unsetenv("LLMPOWER_SIM_GPUS");
    unsetenv("LLMPOWER_SIM_PROCESSES");
    remove(path);
}

static struct llmpower_sampler *asked;
static uint32_t asked_pids[LLMPOWER_MAX_PROCESSES], asked_count;

static void *ask_once(void *unused) {
    (void)unused;
    CHECK(llmpower_processes(asked, 0, asked_pids, &asked_count) == 0);
    return NULL;
}

/* Closing gives the library back, so it waits for whoever is inside it. */
static void test_closing_waits_for_who_asks(void) {
    pthread_t thread;
    setenv("LLMPOWER_SIM_LATENCY", "processes=0.3s", 1);
    asked = open_or_die(NULL);
    unsetenv("LLMPOWER_SIM_LATENCY");
    CHECK(pthread_create(&thread, NULL, ask_once, NULL) == 0);
    sleep_ms(50);
    llmpower_close(asked);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void test_fork(void) {
    struct llmpower_sampler *sampler = open_or_die(NULL);
    struct llmpower_sample sample;
    CHECK(llmpower_start(sampler) == 0);
    sleep_ms(20);
    pid_t child = fork();
    if (child == 0) {
        CHECK(llmpower_drain(sampler, &sample, 1) == 0);
        CHECK(llmpower_start(sampler) == LLMPOWER_FORKED);
        CHECK(llmpower_stop(sampler) == LLMPOWER_FORKED);
        llmpower_close(sampler);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(llmpower_drain(sampler, &sample, 1) == 1);
    llmpower_close(sampler);
}

static void test_a_lost_card_is_found_again(void) {
    static struct llmpower_sample samples[4096];
    static struct llmpower_channel channels[LLMPOWER_MAX_CHANNELS];
    setenv("LLMPOWER_SIM_FAULT", "lost:1.5,1.7", 1); /* later than opening ends, in Valgrind too */
    struct llmpower_sampler *sampler = open_or_die(NULL);
    unsetenv("LLMPOWER_SIM_FAULT");
    CHECK(llmpower_device_of(sampler, llmpower_device_at(sampler, 0)->uuid) == 0);
    CHECK(llmpower_device_of(sampler, "MIG-elsewhere") == -1);
    CHECK(llmpower_start(sampler) == 0);
    int marks = 0;
    while (marks < 2) { /* one for each field */
        size_t count = llmpower_drain(sampler, samples, 4096);
        for (size_t i = 0; i < count; i++) marks += samples[i].status == LLMPOWER_EPOCH;
        CHECK(llmpower_read_channels(sampler, channels, LLMPOWER_MAX_CHANNELS) == 2);
        CHECK(channels[0].in_call_since_ns <= llmpower_monotonic_ns());
        sleep_ms(5);
    }
    llmpower_close(sampler);
}

static void test_failures(void) {
    struct llmpower_sampler *sampler = NULL;
    struct llmpower_options missing = options_with("libllmpower-none.so", NULL);
    CHECK(llmpower_open(&missing, &sampler, error, sizeof error) == LLMPOWER_NO_LIBRARY);
    struct llmpower_options nowhere = options_with("/dev/null/libllmpower-none.so", NULL);
    CHECK(llmpower_open(&nowhere, &sampler, error, sizeof error) == LLMPOWER_NO_LIBRARY);
    struct llmpower_options wrong = options_with("libm.so.6", NULL);
    CHECK(llmpower_open(&wrong, &sampler, error, sizeof error) == LLMPOWER_WRONG_LIBRARY);
    setenv("LLMPOWER_SIM_FAULT", "init", 1);
    struct llmpower_options driver = options_with(library, NULL);
    CHECK(llmpower_open(&driver, &sampler, error, sizeof error) == LLMPOWER_DRIVER);
    unsetenv("LLMPOWER_SIM_FAULT");
    CHECK(sampler == NULL);
    llmpower_close(NULL);
}

static void test_nothing_to_sample(void) {
    struct llmpower_options none = options_with(NULL, "/dev/null/none");
    struct llmpower_sampler *sampler = NULL;
    CHECK(llmpower_open(&none, &sampler, error, sizeof error) == 0);
    CHECK((uintptr_t)sampler % 64 == 0); /* its rings keep their indices on lines of their own */
    CHECK(llmpower_device_count(sampler) == 0);
    CHECK(llmpower_start(sampler) == 0);
    CHECK(llmpower_stop(sampler) == 0);
    llmpower_close(sampler);
}

static void test_powercap(const char *root) {
    static struct llmpower_sample samples[4096];
    char zone[2048];
    snprintf(zone, sizeof zone, "%s/intel-rapl:0", root);
    CHECK(mkdir(zone, 0700) == 0);
    write_file(zone, "name", "package-0\n");
    write_file(zone, "max_energy_range_uj", "1000\n");
    write_file(zone, "energy_uj", "900\n");
    struct llmpower_sampler *sampler = open_or_die(root);
    CHECK(llmpower_start(sampler) == 0);
    sleep_ms(50);
    write_file(zone, "energy_uj", "100\n"); /* wrapped: 100 to the end of the range, 100 after it */
    sleep_ms(50);
    CHECK(llmpower_stop(sampler) == 0);
    size_t count = llmpower_drain(sampler, samples, 4096);
    int64_t last_uj = -1;
    for (size_t i = 0; i < count; i++) {
        /* Between truncation and writing the file is empty for a moment; that is an error and not a value. */
        if (samples[i].device != 1 || samples[i].status) continue;
        CHECK(samples[i].value >= last_uj);
        last_uj = samples[i].value;
    }
    CHECK(last_uj == 200);
    uint32_t pid, number;
    CHECK(llmpower_processes(sampler, 1, &pid, &number) == -EOPNOTSUPP); /* a CPU's are not listed */
    int64_t limit_uw = 0;
    CHECK(llmpower_power_limit(sampler, 0, &limit_uw) == 0 && limit_uw == 400000000); /* the A100's */
    CHECK(llmpower_power_limit(sampler, 1, &limit_uw) == -EOPNOTSUPP);
    CHECK(llmpower_power_limit(sampler, 2, &limit_uw) == -ENODEV && limit_uw == 400000000);
    int32_t celsius = 0;
    CHECK(llmpower_temperature(sampler, 0, &celsius) == 0 && celsius >= 25 && celsius <= 82);
    CHECK(llmpower_temperature(sampler, 1, &celsius) == -EOPNOTSUPP); /* a CPU's is not read */
    CHECK(llmpower_temperature(sampler, 2, &celsius) == -ENODEV);
    llmpower_close(sampler);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    library = argv[1];
    setenv("LLMPOWER_SIM_LOAD", "square:100,500,0.05", 1);
    test_samples_come_in_order();
    test_a_thousand_starts();
    test_who_computes(argv[2]);
    test_closing_waits_for_who_asks();
    test_fork();
    test_a_lost_card_is_found_again();
    test_failures();
    test_nothing_to_sample();
    test_powercap(argv[2]);
    puts("sampler: ok");
    return 0;
}
