// Triton's custom batching by rows: a batch has at most MAX_BATCH_ROWS tokens or patches, unless one request has more.
//
// Triton counts a batch in requests (max_batch_size). Here a request has one row or ten thousand, and the memory and
// time of a run follow its rows. Triton loads this library as batchstrategy.so from the folder of a model's backend, or
// of the model, and calls the five TRITONBACKEND_ModelBatch* functions below while it forms the model's batches
// ("custom batching" in Triton's user guide). docs/contract.md says what the model's configuration needs.
//
// The declarations are those of tritonbackend.h and tritonserver.h, API version 1. They are repeated because no package
// index has these headers, and they are few. Triton's process has the functions: nothing is linked. To build:
//
//   cc -std=gnu11 -O2 -shared -fPIC -o batchstrategy.so batch_strategy.c

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct TRITONBACKEND_Batcher TRITONBACKEND_Batcher;
typedef struct TRITONBACKEND_Input TRITONBACKEND_Input;
typedef struct TRITONBACKEND_Model TRITONBACKEND_Model;
typedef struct TRITONBACKEND_Request TRITONBACKEND_Request;
typedef struct TRITONSERVER_Error TRITONSERVER_Error;
typedef struct TRITONSERVER_Message TRITONSERVER_Message;

enum { TRITONSERVER_ERROR_INVALID_ARG = 3 };

TRITONSERVER_Error* TRITONSERVER_ErrorNew(int code, const char* message);
void TRITONSERVER_ErrorDelete(TRITONSERVER_Error* error);
TRITONSERVER_Error* TRITONSERVER_MessageSerializeToJson(TRITONSERVER_Message* message, const char** json, size_t* size);
TRITONSERVER_Error* TRITONSERVER_MessageDelete(TRITONSERVER_Message* message);
TRITONSERVER_Error* TRITONBACKEND_ModelConfig(
    TRITONBACKEND_Model* model, uint32_t config_version, TRITONSERVER_Message** config);
TRITONSERVER_Error* TRITONBACKEND_RequestInput(
    TRITONBACKEND_Request* request, const char* name, TRITONBACKEND_Input** input);
TRITONSERVER_Error* TRITONBACKEND_InputProperties(
    TRITONBACKEND_Input* input, const char** name, int* datatype, const int64_t** shape, uint32_t* dims_count,
    uint64_t* byte_size, uint32_t* buffer_count);

// What the library knows about a model. Triton forms one batch of a model at a time, on one thread.
typedef struct {
    int64_t max_rows;
    int64_t rows;             // of the current batch
    const void* placeholder;  // Triton's, for the current batch
    bool was_extended;        // since Triton began to add to it
} Batcher;

static const int64_t UNBOUNDED = INT64_MAX;

static TRITONSERVER_Error* invalid(const char* message) {
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, message);
}

// Returns the whole number that follows a key in Triton's JSON, 0 if something else does, or `absent`.
static int64_t read_number(const char* json, const char* quoted_key, int64_t absent) {
    const char* key = strstr(json, quoted_key);  // in JSON, no string contains an unescaped quotation mark
    if (key == NULL) return absent;
    const char* value = key + strlen(quoted_key);
    value += strcspn(value, "0123456789}");  // what precedes a parameter's value: `:{"string_value":"`
    char* end;
    int64_t number = strtoll(value, &end, 10);
    return strchr("\",}", *end) ? number : 0;
}

static TRITONSERVER_Error* read_config(const char* json, Batcher* batcher) {
    batcher->max_rows = read_number(json, "\"MAX_BATCH_ROWS\"", UNBOUNDED);
    if (batcher->max_rows < 1) return invalid("MAX_BATCH_ROWS has to be a whole number above 0");
    // With a delay, Triton merges batches and takes requests over into the next one without asking.
    if (batcher->max_rows != UNBOUNDED && read_number(json, "\"max_queue_delay_microseconds\"", 0) != 0)
        return invalid("MAX_BATCH_ROWS needs max_queue_delay_microseconds 0: remove one of them");
    return NULL;
}

// Sets rows to the length of the tensor that has a row for each token or patch.
static TRITONSERVER_Error* count_rows(TRITONBACKEND_Request* request, int64_t* rows) {
    TRITONBACKEND_Input* input;
    TRITONSERVER_Error* error = TRITONBACKEND_RequestInput(request, "input_ids", &input);
    if (error != NULL) {
        TRITONSERVER_ErrorDelete(error);
        error = TRITONBACKEND_RequestInput(request, "patches", &input);
    }
    const int64_t* shape;  // begins with the 1 that every request has
    if (error == NULL) error = TRITONBACKEND_InputProperties(input, NULL, NULL, &shape, NULL, NULL, NULL);
    if (error == NULL) *rows = shape[1];
    return error;
}

// Called when a model has been loaded.
TRITONSERVER_Error* TRITONBACKEND_ModelBatcherInitialize(TRITONBACKEND_Batcher** batcher, TRITONBACKEND_Model* model) {
    TRITONSERVER_Message* config;
    TRITONSERVER_Error* error = TRITONBACKEND_ModelConfig(model, 1, &config);
    if (error != NULL) return error;
    Batcher* created = calloc(1, sizeof *created);
    const char* json;
    size_t size;
    error = TRITONSERVER_MessageSerializeToJson(config, &json, &size);
    if (error == NULL) error = read_config(json, created);
    TRITONSERVER_MessageDelete(config);
    *batcher = (TRITONBACKEND_Batcher*)created;
    return error;
}

TRITONSERVER_Error* TRITONBACKEND_ModelBatcherFinalize(TRITONBACKEND_Batcher* batcher) {
    free(batcher);
    return NULL;
}

// Called before requests are added to a batch, also to one that already has some and waits for its turn. Then Triton
// gives the same placeholder again. It keeps a batch's placeholder until the next batch has its own.
TRITONSERVER_Error* TRITONBACKEND_ModelBatchInitialize(const TRITONBACKEND_Batcher* of_model, void** placeholder) {
    Batcher* batcher = (Batcher*)of_model;
    if (placeholder != batcher->placeholder) batcher->rows = 0;
    batcher->placeholder = placeholder;
    batcher->was_extended = false;
    *placeholder = batcher;
    return NULL;
}

TRITONSERVER_Error* TRITONBACKEND_ModelBatchFinalize(void* batcher) {
    (void)batcher;
    return NULL;
}

// Called for each request in turn, until one is refused.
TRITONSERVER_Error* TRITONBACKEND_ModelBatchIncludeRequest(
    TRITONBACKEND_Request* request, void* placeholder, bool* should_include) {
    Batcher* batcher = placeholder;
    *should_include = true;
    if (batcher->max_rows == UNBOUNDED) return NULL;
    int64_t rows = 0;
    TRITONSERVER_Error* error = count_rows(request, &rows);
    *should_include = batcher->rows == 0 || rows <= batcher->max_rows - batcher->rows;
    if (*should_include) {
        batcher->rows += rows;
        batcher->was_extended = true;
    } else if (!batcher->was_extended) {
        // Triton closes a batch at a refusal only if it was extended before. Otherwise it asks again at once, over and
        // over, until the batch's turn comes.
        nanosleep(&(struct timespec){.tv_nsec = 500 * 1000}, NULL);
    }
    return error;
}
