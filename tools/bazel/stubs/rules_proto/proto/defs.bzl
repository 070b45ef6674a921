"""The rules for protocol buffers that Bazel 4.2.3 has built in, under the names by which its packages load them."""

proto_lang_toolchain = native.proto_lang_toolchain
proto_library = native.proto_library
