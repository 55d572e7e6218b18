/* standalone.c - runs a harness without libFuzzer: on files, then on random inputs that are the same every time.
 *
 * usage: HARNESS COUNT [FILE...] */
#include "harness.h"

static uint64_t state = 1;

/* splitmix64 */
static uint64_t next_random(void)
{
    uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void run_file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");
    size_t size;
    uint8_t *input;
    if (file == NULL) {
        fprintf(stderr, "can't open %s\n", path);
        exit(2);
    }
    size = fread(data, 1, sizeof data, file);
    fclose(file);
    input = exactly(size);
    memcpy(input, data, size);
    LLVMFuzzerTestOneInput(input, size);
    release(input, size);
}

static void run_random(void)
{
    size_t size = (size_t)(next_random() % (next_random() % 4 == 0 ? 2000 : 200)), i;
    unsigned mask = next_random() % 2 ? 0xff : 0x1f; /* small numbers make more frames that are whole */
    uint8_t *input = exactly(size);
    for (i = 0; i < size; i++)
        input[i] = (uint8_t)(next_random() & (next_random() % 8 == 0 ? 0xff : mask));
    LLVMFuzzerTestOneInput(input, size);
    release(input, size);
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? strtol(argv[1], NULL, 10) : 1000, i;
    int file;
    for (file = 2; file < argc; file++)
        run_file(argv[file]);
    for (i = 0; i < count; i++)
        run_random();
    printf("%s: %d files, %ld random inputs\n", argv[0], argc > 2 ? argc - 2 : 0, count);
    return 0;
}
