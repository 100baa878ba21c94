# Shared by the scripts one folder up; sourced, never run. The caller has said `set -euo pipefail` and stands in the
# root.

say() { printf '== %s\n' "$*"; }

# What the build and its tests need, all from Debian 12. The CMake file of libdnnl-dev asks for ocl-icd-opencl-dev,
# which its package only recommends.
build_packages=(
  build-essential cmake ninja-build ccache pkg-config python3
  libboost-dev libtomlplusplus-dev libspdlog-dev libfmt-dev libcli11-dev nlohmann-json3-dev
  libdnnl-dev ocl-icd-opencl-dev libgloo-dev libssl-dev libgtest-dev libgmock-dev
)

is_installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "$0: installing packages needs root or sudo; as root, run: $*" >&2
    return 1
  fi
}

# install_missing PACKAGE...: asks apt only for what is not there; a second run needs neither network nor rights.
install_missing() {
  local package missing=()
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  if [ "${#missing[@]}" -eq 0 ]; then
    say "packages: all $# are installed"
    return
  fi
  if ! command -v apt-get >/dev/null; then
    echo "$0: no apt-get here (trireme is built on Debian 12); install by hand: ${missing[*]}" >&2
    return 1
  fi
  say "packages: installing ${missing[*]}"
  as_root apt-get -q update
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}"
}

# configure_and_build PRESET: leaves the programs in build/PRESET and says which optional parts CMake found.
configure_and_build() {
  local preset=$1 log="build/$1/configure.log"
  say "configuring build/$preset"
  mkdir -p "build/$preset"
  if ! cmake --preset "$preset" >"$log" 2>&1; then
    cat "$log" >&2
    return 1
  fi
  sed -n 's/^-- optional: /   optional: /p' "$log"
  say "building build/$preset"
  cmake --build --preset "$preset"
}
