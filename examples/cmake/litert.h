// What classify.cc uses of LiteRT's C interface (its headers litert/c/*.h, as of ai-edge-litert 2.3). A program that
// is built with LiteRT's own headers includes those instead.
#ifndef INTACT_EXAMPLES_LITERT_H_
#define INTACT_EXAMPLES_LITERT_H_

#include <cstddef>
#include <cstdint>

namespace litert {

using Handle = void*;

struct RankedTensorType {
  int32_t element_type;  // 9: int8
  uint32_t rank;         // in 7 bits of it
  int32_t dimensions[8];
  uint32_t strides[8];
  uint32_t spare[16];  // of later versions
};

struct PerTensorQuantization {
  float scale;
  int64_t zero_point;
};

constexpr int kCpu = 1, kRead = 0, kWrite = 1;

using CreateEnvironment = int(int options, const void* option, Handle* environment);
using CreateModelFromBuffer = int(Handle environment, const void* bytes, size_t size, Handle* model);
using CreateOptions = int(Handle* options);
using SetOptionsHardwareAccelerators = int(Handle options, int accelerators);
using CreateCompiledModel = int(Handle environment, Handle model, Handle options, Handle* compiled);
using GetModelSignature = int(Handle model, size_t index, Handle* signature);
using GetSignatureTensorByIndex = int(Handle signature, size_t index, Handle* tensor);
using GetRankedTensorType = int(Handle tensor, RankedTensorType* type);
using GetPerTensorQuantization = int(Handle tensor, PerTensorQuantization* quantization);
using GetBufferRequirements = int(Handle compiled, size_t signature, size_t index, Handle* requirements);
using CreateManagedTensorBufferFromRequirements = int(Handle environment, const RankedTensorType* type,
                                                      Handle requirements, Handle* buffer);
using LockTensorBuffer = int(Handle buffer, void** address, int mode);
using UnlockTensorBuffer = int(Handle buffer);
using RunCompiledModel = int(Handle compiled, size_t signature, size_t inputs, Handle* input, size_t outputs,
                             Handle* output);

}  // namespace litert

#endif  // INTACT_EXAMPLES_LITERT_H_
