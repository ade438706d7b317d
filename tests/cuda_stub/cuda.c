/*
 * The part of the CUDA runtime whose answers ONNX Runtime looks at, for a GPU that does nothing.
 *
 * "Device memory" is memory of the process, so that copies really copy. Kernels are counted and not run: what they
 * would have computed stays zero.
 */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#undef cudaGetDeviceProperties

enum { LAUNCHES, COPIES_TO_HOST, COPIES_TO_DEVICE, SYNCHRONISATIONS, COUNTERS };
static long counters[COUNTERS];

/* Writes the counters since the last call, in the order above. */
void stub_take_counters(long *counts) {
    memcpy(counts, counters, sizeof counters);
    memset(counters, 0, sizeof counters);
}

/* The device: one like an H100. */

cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t error) { return "an error of a GPU that does nothing"; }
const char *cudaGetErrorName(cudaError_t error) { return "error"; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "a GPU that does nothing");
    properties->major = 9;
    properties->totalGlobalMem = 80ul << 30;
    properties->sharedMemPerBlock = 48 << 10;
    properties->sharedMemPerBlockOptin = 227 << 10;
    properties->sharedMemPerMultiprocessor = 228 << 10;
    properties->regsPerBlock = properties->regsPerMultiprocessor = 64 << 10;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 0x7fffffff;
    properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
    properties->multiProcessorCount = 132;
    properties->l2CacheSize = 50 << 20;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 << 10; break;
    default: *value = 1;
    }
    return cudaSuccess;
}

/* Memory. */

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = 79ul << 30;
    *total = 80ul << 30;
    return cudaSuccess;
}

static cudaError_t allocate(void **pointer, size_t bytes) {
    bytes = (bytes / 256 + 1) * 256; /* CUDA aligns by 256 */
    *pointer = aligned_alloc(256, bytes);
    if (*pointer == NULL)
        return cudaErrorMemoryAllocation;
    memset(*pointer, 0, bytes);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **pointer, size_t bytes) { return allocate(pointer, bytes); }
cudaError_t cudaMallocHost(void **pointer, size_t bytes) { return allocate(pointer, bytes); }
cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) { return allocate(pointer, bytes); }
cudaError_t cudaFree(void *pointer) { free(pointer); return cudaSuccess; }
cudaError_t cudaFreeHost(void *pointer) { free(pointer); return cudaSuccess; }

static void copy(void *target, const void *source, size_t bytes, enum cudaMemcpyKind kind) {
    counters[COPIES_TO_HOST] += kind == cudaMemcpyDeviceToHost;
    counters[COPIES_TO_DEVICE] += kind == cudaMemcpyHostToDevice;
    memcpy(target, source, bytes);
}

cudaError_t cudaMemcpy(void *target, const void *source, size_t bytes, enum cudaMemcpyKind kind) {
    counters[SYNCHRONISATIONS]++;
    copy(target, source, bytes, kind);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(
    void *target, const void *source, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    copy(target, source, bytes, kind);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *target, int value, size_t bytes) { memset(target, value, bytes); return cudaSuccess; }
cudaError_t cudaMemsetAsync(void *target, int value, size_t bytes, cudaStream_t stream) {
    return cudaMemset(target, value, bytes);
}

/* Streams and events. */

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return allocate((void **)stream, 1); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return cudaStreamCreate(stream); }
cudaError_t cudaEventCreate(cudaEvent_t *event) { return allocate((void **)event, 1); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { return cudaEventCreate(event); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { counters[SYNCHRONISATIONS]++; return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { counters[SYNCHRONISATIONS]++; return cudaSuccess; }
cudaError_t cudaDeviceSynchronize(void) { counters[SYNCHRONISATIONS]++; return cudaSuccess; }

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

/* Kernels. */

void **__cudaRegisterFatBinary(void *binary) {
    static void *handle;
    return &handle;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
    memset(attributes, 0, sizeof *attributes);
    attributes->binaryVersion = attributes->ptxVersion = 90;
    attributes->maxThreadsPerBlock = 1024;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *blocks, const void *function, int threads, size_t shared, unsigned flags) {
    *blocks = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(
    const char *symbol, void **function, unsigned version, unsigned long long flags,
    enum cudaDriverEntryPointQueryResult *result) {
    *function = NULL;
    if (result)
        *result = cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(
    cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    counters[LAUNCHES]++;
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(
    const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    counters[LAUNCHES]++;
    return cudaSuccess;
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **arguments) {
    counters[LAUNCHES]++;
    return cudaSuccess;
}

unsigned __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) { return 0; }
