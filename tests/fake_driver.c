/* A driver whose GPU is the host's memory: libcuda.so.1 for the real CUDA binding of Python.

Every call that makes, frees or moves something writes a line to stderr. While a stream is captured,
copies are kept and not made; launching the graph makes them. The variable FAIL names a call that fails. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MADE(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), 0)
#define OUT_OF_MEMORY 2
#define INVALID_CONTEXT 201

struct copy {
    void *target;
    const void *source;
    size_t size;
};
static struct copy kept[16];
static int count, capturing, depth;

static int fails(const char *name) {
    const char *asked = getenv("FAIL");
    return asked && !strcmp(asked, name);
}

static int copy(void *target, const void *source, size_t size) {
    if (!depth) return INVALID_CONTEXT;
    if (capturing)
        kept[count++] = (struct copy){target, source, size};
    else
        memcpy(target, source, size);
    return 0;
}

/* The binding asks here for each function by its plain name. */
int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    char name[128];
    Dl_info here;
    snprintf(name, sizeof name, "fake_%s", symbol);
    dladdr((void *)cuGetProcAddress_v2, &here);
    *function = strcmp(symbol, "cuGetProcAddress") ? dlsym(dlopen(here.dli_fname, RTLD_LAZY), name)
                                                   : (void *)cuGetProcAddress_v2;
    if (status) *status = !*function;
    return *function ? 0 : 500;
}

int fake_cuInit(unsigned flags) { return fails("cuInit") ? 100 : 0; }
int fake_cuGetErrorString(int error, const char **text) {
    *text = error == 100 ? "no CUDA-capable device is detected"
            : error == OUT_OF_MEMORY ? "out of memory" : "another error";
    return 0;
}
int fake_cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int fake_cuDeviceGet(int *device, int index) { *device = index; return 0; }
int fake_cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin", size); return 0; }
int fake_cuDeviceGetAttribute(int *value, int key, int device) {
    *value = key == 75 ? 8 : key == 76 ? 7 : key == 16 ? 4 : -1; /* capability 8.7, multiprocessors */
    return 0;
}
int fake_cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)0x11; return MADE("retain"); }
int fake_cuDevicePrimaryCtxRelease(int device) { return MADE("release"); }
int fake_cuCtxPushCurrent(void *context) { depth += context == (void *)0x11; return 0; }
int fake_cuCtxPopCurrent(void **context) { depth--; *context = (void *)0x11; return 0; }
int fake_cuMemGetInfo(size_t *available, size_t *total) {
    if (!depth) return INVALID_CONTEXT;
    *available = 1000, *total = 2000;
    return 0;
}
int fake_cuMemAlloc(void **address, size_t size) {
    if (!depth) return INVALID_CONTEXT;
    if (fails("cuMemAlloc")) return OUT_OF_MEMORY;
    *address = calloc(1, size);
    return MADE("device %zu", size);
}
int fake_cuMemFree(void *address) { free(address); return depth ? MADE("free device") : INVALID_CONTEXT; }
int fake_cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    *address = calloc(1, size);
    return depth ? MADE("pinned %zu", size) : INVALID_CONTEXT;
}
int fake_cuMemFreeHost(void *address) { free(address); return depth ? MADE("free pinned") : INVALID_CONTEXT; }
int fake_cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)0x22; return MADE("stream %u", flags); }
int fake_cuStreamDestroy(void *stream) { return MADE("free stream %p", stream); }
int fake_cuStreamSynchronize(void *stream) { return fails("cuStreamSynchronize") ? 700 : MADE("wait %p", stream); }
int fake_cuMemcpyHtoDAsync(void *target, const void *source, size_t size, void *stream) {
    MADE("upload %zu on %p", size, stream);
    return copy(target, source, size);
}
int fake_cuMemcpyDtoHAsync(void *target, const void *source, size_t size, void *stream) {
    MADE("download %zu on %p", size, stream);
    return copy(target, source, size);
}
int fake_cuStreamBeginCapture(void *stream, int mode) { capturing = 1; return MADE("capture mode %d", mode); }
int fake_cuStreamEndCapture(void *stream, void **graph) {
    capturing = 0;
    *graph = (void *)0x33;
    return MADE("end capture");
}
int fake_cuGraphInstantiateWithFlags(void **executable, void *graph, uint64_t flags) {
    *executable = (void *)0x44;
    return fails("cuGraphInstantiate") ? OUT_OF_MEMORY : MADE("instantiate %p", graph);
}
int fake_cuGraphInstantiate(void **executable, void *graph, uint64_t flags) {
    return fake_cuGraphInstantiateWithFlags(executable, graph, flags);
}
int fake_cuGraphDestroy(void *graph) { return MADE("free graph %p", graph); }
int fake_cuGraphExecDestroy(void *executable) { return MADE("free executable %p", executable); }
int fake_cuGraphLaunch(void *executable, void *stream) {
    MADE("launch %p on %p", executable, stream);
    for (int i = 0; i < count; i++) memcpy(kept[i].target, kept[i].source, kept[i].size);
    return 0;
}
