/* Separates one mixture with LiteRT's C library and nothing else.
 *
 *   separate MODEL.tflite MIXTURE.f32 SOURCES.f32
 *
 * MODEL is a file of `python -m export` that takes one mixture. MIXTURE holds its values as float32 in the machine's
 * byte order, row by row, in [0, 1]; SOURCES gets num_sources times as many.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "litert.h"

enum { MAX_OUTPUTS = 8 };

static void fail(const char* what) {
  fprintf(stderr, "error: %s\n", what);
  exit(2);
}

static void check(LiteRtStatus status, const char* what) {
  if (status != 0) fail(what);
}

/* Makes a buffer for a tensor of fixed shape and returns its size in bytes. */
static size_t make_buffer(LiteRtEnvironment environment, LiteRtTensor tensor, LiteRtTensorBuffer* buffer) {
  LiteRtRankedTensorType type;
  check(LiteRtGetRankedTensorType(tensor, &type), "a tensor has no shape");
  if (type.element_type != ELEMENT_FLOAT32) fail("a tensor is not float32");
  size_t bytes = sizeof(float);
  for (uint32_t i = 0; i < type.layout.rank; ++i) {
    if (type.layout.dimensions[i] < 1) fail("the model takes any number of mixtures; export one of fixed shape");
    bytes *= (size_t)type.layout.dimensions[i];
  }
  check(LiteRtCreateManagedTensorBuffer(environment, BUFFER_HOST_MEMORY, &type, bytes, buffer), "no memory");
  return bytes;
}

static void read_mixture(const char* path, LiteRtTensorBuffer buffer, size_t bytes) {
  void* values;
  check(LiteRtLockTensorBuffer(buffer, &values, LOCK_WRITE), "the input cannot be written");
  FILE* file = fopen(path, "rb");
  if (!file) fail("the mixture's file cannot be opened");
  if (fread(values, 1, bytes, file) != bytes || fgetc(file) != EOF) fail("the mixture has another size than the model's");
  fclose(file);
  for (size_t i = 0; i < bytes / sizeof(float); ++i) {
    float value = ((const float*)values)[i];
    if (!(value >= 0.0f && value <= 1.0f)) fail("the mixture holds NaN or a value outside [0, 1]"); /* NaN fails both */
  }
  check(LiteRtUnlockTensorBuffer(buffer), "the input cannot be written");
}

static void write_sources(const char* path, LiteRtTensorBuffer buffer, size_t bytes) {
  void* values;
  check(LiteRtLockTensorBuffer(buffer, &values, LOCK_READ), "the sources cannot be read");
  FILE* file = fopen(path, "wb");
  if (!file || fwrite(values, 1, bytes, file) != bytes || fclose(file) != 0) fail("the sources cannot be written");
  check(LiteRtUnlockTensorBuffer(buffer), "the sources cannot be read");
}

int main(int argc, char** argv) {
  if (argc != 4) fail("usage: separate MODEL.tflite MIXTURE.f32 SOURCES.f32");

  LiteRtEnvironment environment;
  LiteRtModel model;
  LiteRtOptions options;
  LiteRtCompiledModel compiled;
  check(LiteRtCreateEnvironment(0, NULL, &environment), "LiteRT does not start");
  check(LiteRtCreateModelFromFile(environment, argv[1], &model), "the model cannot be read");
  check(LiteRtCreateOptions(&options), "no memory");
  check(LiteRtSetOptionsHardwareAccelerators(options, ACCELERATOR_CPU), "the CPU cannot be chosen");
  check(LiteRtCreateCompiledModel(environment, model, options, &compiled), "the model cannot be compiled");

  /* The file has one signature, `separate`, of one input, `mixture`. */
  LiteRtSignature signature;
  LiteRtTensor tensor;
  LiteRtTensorBuffer mixture, outputs[MAX_OUTPUTS];
  check(LiteRtGetModelSignature(model, 0, &signature), "the model has no signature");
  check(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor), "the model has no input");
  size_t mixture_bytes = make_buffer(environment, tensor, &mixture);
  read_mixture(argv[2], mixture, mixture_bytes);

  LiteRtParamIndex count, sources = MAX_OUTPUTS;
  size_t sources_bytes = 0;
  check(LiteRtGetNumSignatureOutputs(signature, &count), "the model has no outputs");
  if (count > MAX_OUTPUTS) fail("the model has too many outputs");
  for (LiteRtParamIndex i = 0; i < count; ++i) {
    const char* name;
    check(LiteRtGetSignatureOutputName(signature, i, &name), "an output has no name");
    check(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor), "an output is missing");
    size_t bytes = make_buffer(environment, tensor, &outputs[i]);
    if (strcmp(name, "sources") == 0) {
      sources = i;
      sources_bytes = bytes;
    }
  }
  if (sources == MAX_OUTPUTS) fail("the model has no output named sources");

  check(LiteRtRunCompiledModel(compiled, 0, 1, &mixture, count, outputs), "the model does not run");
  write_sources(argv[3], outputs[sources], sources_bytes);

  LiteRtDestroyTensorBuffer(mixture);
  for (LiteRtParamIndex i = 0; i < count; ++i) LiteRtDestroyTensorBuffer(outputs[i]);
  LiteRtDestroyCompiledModel(compiled);
  LiteRtDestroyOptions(options);
  LiteRtDestroyModel(model);
  LiteRtDestroyEnvironment(environment);
  return 0;
}
