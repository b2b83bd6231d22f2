#!/usr/bin/env bash
# npm run setup: installs the packages, builds, and makes sure that there is a WebGPU adapter. Where no GPU's driver
# gives one, installs Mesa's software Vulkan driver (lavapipe) with apt-get. May be repeated at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly minimum_node=20.19
# Mesa 22 lacks shaderUniformBufferArrayDynamicIndexing, which Dawn requires.
readonly minimum_mesa=23
readonly backports_list=/etc/apt/sources.list.d/atrous-backports.list

log=$(mktemp)
trap 'rm -f "$log"' EXIT

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

# Runs a command without its output, which is shown if it fails.
quietly() {
  "$@" >"$log" 2>&1 && return
  cat "$log" >&2
  fail "failed: $*"
}

check_node() {
  command -v node >/dev/null || fail "Node.js is missing: install version $minimum_node or newer"
  local version
  version=$(node --version)
  version=${version#v}
  # The smaller of two versions sorts first.
  [ "$(printf '%s\n' "$minimum_node" "$version" | sort -V | head -n 1)" = "$minimum_node" ] || fail "Node.js $version is too old: install version $minimum_node or newer"
}

install_packages() {
  if node scripts/node-modules-current.mjs; then
    say 'packages: up to date'
    return
  fi
  say 'packages: npm ci'
  # No package needs its install script; npm 11 would ask about them.
  quietly npm ci --ignore-scripts --no-audit --no-fund
}

build() {
  say 'build: npm run build'
  quietly npm run --silent build
}

# Prints the adapter, or leaves Dawn's complaints in the log.
probe() {
  local status=0 found
  found=$(node scripts/probe-adapter.mjs 2>"$log") || status=$?
  if [ "$status" -eq 4 ]; then
    cat "$log" >&2
    fail 'WebGPU is not available here: the webgpu package needs macOS, Windows, or Linux with glibc 2.34 or newer' \
      '(Debian 12, Ubuntu 22.04, Fedora 35), on an x64 or arm64 processor'
  fi
  [ "$status" -eq 0 ] || return 1
  say "adapter: $found"
}

apt_candidate() { LC_ALL=C apt-cache policy mesa-vulkan-drivers | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'; }

major_version() {
  local version=${1#*:}
  echo "${version%%.*}"
}

# The address from which apt gets the system's own packages, Debian's keys for it, and the suite of backports there.
backports_source() {
  local mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg options=''
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
    awk -v name="$VERSION_CODENAME" '$2 == name && $3 == "main" && !seen++ { print $1 }')
  [ -n "$mirror" ] || return 1
  [ ! -f "$keys" ] || options="[signed-by=$keys] "
  echo "deb $options$mirror $VERSION_CODENAME-backports main"
}

# Prints the commands that install the driver, one a line; $1 goes before what needs root.
driver_commands() {
  local sudo=$1 candidate package=mesa-vulkan-drivers source
  candidate=$(apt_candidate)
  if [ -z "$candidate" ] || [ "$(major_version "$candidate")" -lt "$minimum_mesa" ]; then
    [ "$ID" = debian ] || return 1
    # apt takes from backports only what is asked for by name, and what that needs.
    package=$package/$VERSION_CODENAME-backports
    if ! apt-cache madison mesa-vulkan-drivers | grep " $VERSION_CODENAME-backports/" >/dev/null; then
      source=$(backports_source) || return 1
      echo "echo '$source' | ${sudo}tee $backports_list"
      echo "${sudo}apt-get update"
    fi
  fi
  echo "${sudo}apt-get install -y --no-install-recommends libvulkan1 $package"
}

install_driver_with_apt() {
  export DEBIAN_FRONTEND=noninteractive
  say 'adapter: none found, installing the software Vulkan driver (Mesa lavapipe)'
  quietly apt-get update
  local commands command
  commands=$(driver_commands '') ||
    fail "$PRETTY_NAME offers no mesa-vulkan-drivers $minimum_mesa or newer: use a newer release, or a GPU with its driver"
  while read -r command; do
    say "  $command"
    if ! bash -c "set -o pipefail; $command" </dev/null >"$log" 2>&1; then
      # A list that does not work would spoil every later apt-get update.
      rm -f "$backports_list"
      cat "$log" >&2
      fail "failed: $command"
    fi
  done <<<"$commands"
  probe && return
  show_complaints
  fail "there is still no WebGPU adapter with Mesa $(dpkg-query -W -f '${Version}' mesa-vulkan-drivers)"
}

# What Dawn said about the drivers it found, without where in its source it said so.
show_complaints() { grep -Ev '^ +(at|-) |^$' "$log" >&2 || true; }

# Says what to do where this script does not install the driver itself, and fails.
explain_driver() {
  show_complaints
  local remedy sudo=''
  [ "$(id -u)" -eq 0 ] || sudo='sudo '
  if [ "$(uname -s)" = Darwin ]; then
    fail 'no WebGPU adapter: Dawn needs a Mac whose GPU has Metal'
  elif [ "$(uname -s)" != Linux ]; then
    fail 'no WebGPU adapter: update the driver of the graphics card (Direct3D 12 or Vulkan)'
  elif command -v apt-get >/dev/null; then
    if [ -z "$(apt_candidate)" ]; then
      remedy="${sudo}apt-get update"
    else
      remedy=$(driver_commands "$sudo") ||
        fail "no WebGPU adapter, and $PRETTY_NAME offers no mesa-vulkan-drivers $minimum_mesa or newer"
    fi
  elif command -v dnf >/dev/null; then
    remedy="${sudo}dnf install vulkan-loader mesa-vulkan-drivers"
  elif command -v pacman >/dev/null; then
    remedy="${sudo}pacman -S vulkan-icd-loader vulkan-swrast"
  elif command -v zypper >/dev/null; then
    remedy="${sudo}zypper install libvulkan1 libvulkan_lvp"
  else
    fail "no WebGPU adapter: install the Vulkan loader (libvulkan.so.1) and Mesa's lavapipe driver, $minimum_mesa or newer"
  fi
  say 'no WebGPU adapter. Install the driver of the GPU, or else the software Vulkan driver with' >&2
  printf '%s\n' "$remedy" >&2
  fail 'and then repeat npm run setup'
}

check_node
install_packages
build
if ! probe; then
  ID='' VERSION_CODENAME='' PRETTY_NAME='this system'
  # shellcheck source=/dev/null
  [ ! -f /etc/os-release ] || . /etc/os-release
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    install_driver_with_apt
  else
    explain_driver
  fi
fi
say 'done'
