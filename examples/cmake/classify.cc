// Looks at the model that is linked into this program, and reads a digit with it.
//
//   classify                             size and alignment of the array
//   classify IMAGE.ppm libLiteRt.so      also the digit on the image, by LiteRT, which is loaded from that library
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "digits.h"
#include "litert.h"

namespace {

[[noreturn]] void Fail(const std::string& message) {
  std::fprintf(stderr, "classify: %s\n", message.c_str());
  std::exit(1);
}

// The pixels of a binary PPM file, 0 to 255, RGB.
std::vector<uint8_t> ReadPpm(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  size_t width = 0, height = 0, most = 0;
  file >> magic >> width >> height >> most;
  if (!file || magic != "P6" || most != 255 || width > 4096 || height > 4096) Fail(std::string(path) + " is no PPM");
  file.get();
  std::vector<uint8_t> pixels(width * height * 3);
  file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()));
  if (!file) Fail(std::string(path) + " is cut short");
  return pixels;
}

// The functions of LiteRT, by name; any status but 0 ends the program.
class Runtime {
 public:
  explicit Runtime(const char* library) : library_(dlopen(library, RTLD_NOW)) {
    if (library_ == nullptr) Fail(dlerror());
  }

  template <typename Function, typename... Arguments>
  void Call(const char* name, Arguments... arguments) {
    auto* function = reinterpret_cast<Function*>(dlsym(library_, name));
    if (function == nullptr) Fail(std::string("the library has no ") + name);
    const int status = function(arguments...);
    if (status != 0) Fail(std::string(name) + " gives status " + std::to_string(status));
  }

 private:
  void* library_;
};

// An input or an output of the model.
struct Port {
  litert::Handle tensor = nullptr, buffer = nullptr;
  litert::RankedTensorType type{};
  litert::PerTensorQuantization quantization{};

  Port(Runtime& run, const std::string& side, litert::Handle environment, litert::Handle signature,
       litert::Handle compiled) {
    const std::string tensor_of = "LiteRtGetSignature" + side + "TensorByIndex";
    const std::string needs_of = "LiteRtGetCompiledModel" + side + "BufferRequirements";
    litert::Handle needs = nullptr;
    run.Call<litert::GetSignatureTensorByIndex>(tensor_of.c_str(), signature, size_t{0}, &tensor);
    run.Call<litert::GetRankedTensorType>("LiteRtGetRankedTensorType", tensor, &type);
    run.Call<litert::GetPerTensorQuantization>("LiteRtGetPerTensorQuantization", tensor, &quantization);
    run.Call<litert::GetBufferRequirements>(needs_of.c_str(), compiled, size_t{0}, size_t{0}, &needs);
    run.Call<litert::CreateManagedTensorBufferFromRequirements>("LiteRtCreateManagedTensorBufferFromRequirements",
                                                                environment, &type, needs, &buffer);
  }

  size_t size() const {
    size_t product = 1;
    for (uint32_t i = 0; i < (type.rank & 127); ++i) product *= static_cast<size_t>(type.dimensions[i]);
    return product;
  }
};

void Classify(const std::vector<uint8_t>& pixels, const char* library) {
  Runtime run(library);
  litert::Handle environment = nullptr, model = nullptr, options = nullptr, compiled = nullptr, signature = nullptr;
  run.Call<litert::CreateEnvironment>("LiteRtCreateEnvironment", 0, nullptr, &environment);
  run.Call<litert::CreateModelFromBuffer>("LiteRtCreateModelFromBuffer", environment, g_digits, size_t{g_digits_len},
                                          &model);
  run.Call<litert::CreateOptions>("LiteRtCreateOptions", &options);
  run.Call<litert::SetOptionsHardwareAccelerators>("LiteRtSetOptionsHardwareAccelerators", options, litert::kCpu);
  run.Call<litert::CreateCompiledModel>("LiteRtCreateCompiledModel", environment, model, options, &compiled);
  run.Call<litert::GetModelSignature>("LiteRtGetModelSignature", model, size_t{0}, &signature);
  Port input(run, "Input", environment, signature, compiled), output(run, "Output", environment, signature, compiled);
  if (input.size() != pixels.size()) Fail("the image has another size than the model's input");

  void* address = nullptr;
  run.Call<litert::LockTensorBuffer>("LiteRtLockTensorBuffer", input.buffer, &address, litert::kWrite);
  for (size_t i = 0; i < pixels.size(); ++i) {
    const float value = static_cast<float>(pixels[i]) / 127.5f - 1.0f;  // what the network was trained on
    const float level = std::round(value / input.quantization.scale) + static_cast<float>(input.quantization.zero_point);
    static_cast<int8_t*>(address)[i] = static_cast<int8_t>(std::min(127.0f, std::max(-128.0f, level)));
  }
  run.Call<litert::UnlockTensorBuffer>("LiteRtUnlockTensorBuffer", input.buffer);
  run.Call<litert::RunCompiledModel>("LiteRtRunCompiledModel", compiled, size_t{0}, size_t{1}, &input.buffer, size_t{1},
                                     &output.buffer);
  run.Call<litert::LockTensorBuffer>("LiteRtLockTensorBuffer", output.buffer, &address, litert::kRead);
  const auto* scores = static_cast<const int8_t*>(address);
  const auto best = std::max_element(scores, scores + output.size()) - scores;
  const float share =
      (static_cast<float>(scores[best]) - static_cast<float>(output.quantization.zero_point)) * output.quantization.scale;
  std::printf("digit %d, %.1f %%\n", static_cast<int>(best), 100 * share);
}

}  // namespace

int main(int count, char** arguments) {
  if (g_digits_len < 8 || std::memcmp(g_digits + 4, "TFL3", 4) != 0) Fail("the array is no TensorFlow Lite model");
  if (reinterpret_cast<uintptr_t>(g_digits) % 16 != 0) Fail("the array is not aligned");
  std::printf("g_digits: TFL3, %u bytes, aligned to 16\n", g_digits_len);
  if (count == 3) Classify(ReadPpm(arguments[1]), arguments[2]);
  return count == 1 || count == 3 ? 0 : 2;
}
