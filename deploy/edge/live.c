/* Separates sound while it comes, with LiteRT's C library and nothing else.
 *
 *   live MODEL.tflite f32|s16 < MIXTURE > SOURCES
 *
 * MODEL is a file of `python -m export.live`. Standard input holds the mixture, one channel at the model's rate, as
 * float32 or 16-bit integers in the machine's byte order. Standard output gets the sources in the same format,
 * interleaved: one value of each source, then the next sample. It is one block behind, so it begins with a block that
 * belongs to no input, and ends as many samples later.
 *
 * All memory is taken before the first block is read. The model's state is in the open: each state has two buffers,
 * which take turns as input and output, so nothing is copied from block to block.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "litert.h"

enum { MAX_TENSORS = 32, MAX_SOURCES = 8 };

static void fail(const char* what) {
  fprintf(stderr, "error: %s\n", what);
  exit(2);
}

static void check(LiteRtStatus status, const char* what) {
  if (status != 0) fail(what);
}

/* A tensor's buffer and its number of values. */
typedef struct {
  LiteRtTensorBuffer buffer;
  size_t values;
} Values;

static Values make(LiteRtEnvironment environment, LiteRtTensor tensor, LiteRtRankedTensorType* type) {
  Values made = {NULL, 1};
  check(LiteRtGetRankedTensorType(tensor, type), "a tensor has no shape");
  if (type->element_type != ELEMENT_FLOAT32) fail("a tensor is not float32");
  for (uint32_t i = 0; i < type->layout.rank; ++i) {
    if (type->layout.dimensions[i] < 1) fail("a tensor has no fixed shape");
    made.values *= (size_t)type->layout.dimensions[i];
  }
  check(LiteRtCreateManagedTensorBuffer(environment, BUFFER_HOST_MEMORY, type, made.values * sizeof(float),
                                        &made.buffer),
        "no memory");
  void* memory;
  check(LiteRtLockTensorBuffer(made.buffer, &memory, LOCK_WRITE), "a buffer cannot be written");
  memset(memory, 0, made.values * sizeof(float));
  check(LiteRtUnlockTensorBuffer(made.buffer), "a buffer cannot be written");
  return made;
}

/* Reads up to `count` samples; returns how many there were. */
static size_t read_samples(float* samples, int16_t* integers, size_t count, int is_float) {
  if (is_float) {
    size_t read = fread(samples, sizeof(float), count, stdin);
    if (ferror(stdin)) fail("standard input cannot be read");
    for (size_t i = 0; i < read; ++i) {
      /* Not to be remembered: whatever follows would be lost. NaN fails every comparison. */
      if (!(samples[i] >= -2147483648.0f && samples[i] <= 2147483648.0f)) fail("a sample is NaN or beyond 2^31");
    }
    return read;
  }
  size_t found = fread(integers, sizeof(int16_t), count, stdin);
  if (ferror(stdin)) fail("standard input cannot be read");
  for (size_t i = 0; i < found; ++i) samples[i] = (float)integers[i] / 32768.0f;
  return found;
}

/* Writes `count` samples of each source, interleaved. */
static void write_sources(const float* sources, float* floats, int16_t* integers, size_t hop, size_t num_sources,
                          size_t count, int is_float) {
  for (size_t i = 0; i < count; ++i) {
    for (size_t k = 0; k < num_sources; ++k) {
      float value = sources[k * hop + i];
      if (value != value) fail("the model gives NaN");
      if (!is_float) value = value > 1 ? 32767.0f : value < -1 ? -32767.0f : value * 32767.0f;
      floats[i * num_sources + k] = value;
      if (!is_float) integers[i * num_sources + k] = (int16_t)(value < 0 ? value - 0.5f : value + 0.5f);
    }
  }
  size_t values = count * num_sources;
  size_t written = is_float ? fwrite(floats, sizeof(float), values, stdout)
                            : fwrite(integers, sizeof(int16_t), values, stdout);
  if (written != values || fflush(stdout) != 0) fail("the sources cannot be written");
}

int main(int argc, char** argv) {
  if (argc != 3 || (strcmp(argv[2], "f32") != 0 && strcmp(argv[2], "s16") != 0)) {
    fail("usage: live MODEL.tflite f32|s16 < MIXTURE > SOURCES");
  }
  int is_float = strcmp(argv[2], "f32") == 0;

  LiteRtEnvironment environment;
  LiteRtModel model;
  LiteRtOptions options;
  LiteRtCompiledModel compiled;
  LiteRtSignature signature;
  check(LiteRtCreateEnvironment(0, NULL, &environment), "LiteRT does not start");
  check(LiteRtCreateModelFromFile(environment, argv[1], &model), "the model cannot be read");
  check(LiteRtCreateOptions(&options), "no memory");
  check(LiteRtSetOptionsHardwareAccelerators(options, ACCELERATOR_CPU), "the CPU cannot be chosen");
  check(LiteRtCreateCompiledModel(environment, model, options, &compiled), "the model cannot be compiled");
  check(LiteRtGetModelSignature(model, 0, &signature), "the model has no signature");

  /* Input i of the odd blocks stands in `inputs[0]`, of the even ones in `inputs[1]`; outputs likewise. */
  LiteRtParamIndex num_inputs, num_outputs, block = MAX_TENSORS, sources = MAX_TENSORS;
  LiteRtTensorBuffer inputs[2][MAX_TENSORS], outputs[2][MAX_TENSORS];
  Values all[2 * MAX_TENSORS];
  size_t made = 0, hop = 0, num_sources = 0;
  check(LiteRtGetNumSignatureInputs(signature, &num_inputs), "the model has no inputs");
  check(LiteRtGetNumSignatureOutputs(signature, &num_outputs), "the model has no outputs");
  if (num_inputs > MAX_TENSORS || num_inputs != num_outputs) fail("the model is no live separator");
  const char* names[MAX_TENSORS];
  LiteRtRankedTensorType type;
  LiteRtTensor tensor;
  for (LiteRtParamIndex i = 0; i < num_inputs; ++i) {
    check(LiteRtGetSignatureInputName(signature, i, &names[i]), "an input has no name");
    check(LiteRtGetSignatureInputTensorByIndex(signature, i, &tensor), "an input is missing");
    Values values = all[made++] = make(environment, tensor, &type);
    inputs[0][i] = inputs[1][i] = values.buffer;
    if (strcmp(names[i], "block") == 0) {
      block = i;
      hop = values.values;
    }
  }
  for (LiteRtParamIndex i = 0; i < num_outputs; ++i) {
    const char* name;
    check(LiteRtGetSignatureOutputName(signature, i, &name), "an output has no name");
    check(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor), "an output is missing");
    Values values = all[made++] = make(environment, tensor, &type);
    outputs[0][i] = outputs[1][i] = values.buffer;
    if (strcmp(name, "sources") == 0) {
      sources = i;
      if (type.layout.rank != 3 || type.layout.dimensions[0] != 1 || (size_t)type.layout.dimensions[2] != hop) {
        fail("the sources have another shape");
      }
      num_sources = (size_t)type.layout.dimensions[1];
      continue;
    }
    LiteRtParamIndex state = num_inputs;
    for (LiteRtParamIndex j = 0; j < num_inputs; ++j) {
      if (strncmp(name, "next_", 5) == 0 && strcmp(name + 5, names[j]) == 0) state = j;
    }
    if (state == num_inputs) fail("a state has no successor");
    outputs[1][i] = inputs[0][state];
    inputs[1][state] = outputs[0][i];
  }
  if (block == MAX_TENSORS || sources == MAX_TENSORS || num_sources > MAX_SOURCES) {
    fail("the model is no live separator");
  }
  float* floats = malloc(hop * num_sources * sizeof(float));
  int16_t* integers = malloc(hop * num_sources * sizeof(int16_t));
  if (!floats || !integers) fail("no memory");

  /* After the last sample one block of zeros brings out what is one block behind. */
  size_t left = 0;
  int ended = 0;
  for (int turn = 0; !ended || left; turn = !turn) {
    void* memory;
    size_t found = 0;
    check(LiteRtLockTensorBuffer(inputs[0][block], &memory, LOCK_WRITE), "the input cannot be written");
    if (!ended) found = read_samples(memory, integers, hop, is_float);
    for (size_t i = found; i < hop; ++i) ((float*)memory)[i] = 0;
    check(LiteRtUnlockTensorBuffer(inputs[0][block]), "the input cannot be written");
    size_t count = ended ? left : hop;
    if (!ended && found < hop) {
      ended = 1;
      left = found; /* of the block of zeros that follows */
    } else if (ended) {
      left = 0;
    }
    check(LiteRtRunCompiledModel(compiled, 0, num_inputs, inputs[turn], num_outputs, outputs[turn]),
          "the model does not run");
    check(LiteRtLockTensorBuffer(outputs[0][sources], &memory, LOCK_READ), "the sources cannot be read");
    write_sources(memory, floats, integers, hop, num_sources, count, is_float);
    check(LiteRtUnlockTensorBuffer(outputs[0][sources]), "the sources cannot be read");
  }

  free(floats);
  free(integers);
  for (size_t i = 0; i < made; ++i) LiteRtDestroyTensorBuffer(all[i].buffer);
  LiteRtDestroyCompiledModel(compiled);
  LiteRtDestroyOptions(options);
  LiteRtDestroyModel(model);
  LiteRtDestroyEnvironment(environment);
  return 0;
}
