#!/usr/bin/env bash
# Installs the Debian packages that some tests need, where this runs as root and has apt-get; says which it could not.
# Nothing else needs them: a test whose package is missing is skipped and says so.
set -euo pipefail

# program:package
readonly PACKAGES=(
  bazel:bazel-bootstrap # with the next four: the samples of the build step
  cmake:cmake
  g++:g++
  gradle:gradle
  make:make
  adb:adb # the Android runtime against a device that is made up
  ssh:openssh-client # with the next one: the emulated Raspberry Pi
  qemu-aarch64-static:qemu-user-static
  chromium:chromium # the pages of reports, as a browser shows them
)

missing=()
for entry in "${PACKAGES[@]}"; do
  command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  timeout 120 apt-get update -qq >/dev/null 2>&1 || true
  for package in "${missing[@]}"; do
    timeout 300 apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
      printf 'system packages: %s could not be installed; the tests that need it are skipped\n' "$package" >&2
  done
else
  printf 'system packages: not installed, the tests that need them are skipped: %s\n' "${missing[*]}" >&2
fi
