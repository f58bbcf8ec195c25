#!/bin/sh
# The linker of every program for this machine: cc.
#
# Why it is named in .cargo/config.toml and not left to rustc: a fresh Debian or Ubuntu has none, and
# without a linker `cargo xtask`, which sets the machine up, cannot itself be built. So under
# `cargo xtask` (which says so by BULKHEAD_MAY_INSTALL) a missing one is installed here, once.
set -eu

if command -v cc >/dev/null 2>&1; then
    exec cc "$@"
fi

# rustc shows what a linker says only if it fails; progress goes to the terminal, if there is one.
say() {
    if [ -w /dev/tty ] && (: >/dev/tty) 2>/dev/null; then echo "$*" >/dev/tty; else echo "$*" >&2; fi
}

fail() {
    echo "no linker: the program cc is missing. $*" >&2
    exit 1
}

[ -n "${BULKHEAD_MAY_INSTALL:-}" ] || fail "Run \`cargo xtask setup\`, or install the package build-essential."
command -v apt-get >/dev/null 2>&1 || fail "There is no apt-get here: install a C compiler in your system's way."
root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || fail "Install the package build-essential as root (there is no sudo)."
    # Cargo's children have no standard input; sudo asks on the terminal.
    sudo -n true 2>/dev/null || sudo -v || fail "sudo did not let us: install the package build-essential as root."
    root="sudo"
fi

# Cargo links several programs at once; one of them installs, the others wait.
exec 9<"$0"
flock 9
if ! command -v cc >/dev/null 2>&1; then
    say "Installing build-essential with apt-get: it has the linker (cc) that Rust needs and this machine lacks"
    log=$(mktemp)
    if ! { $root apt-get update --quiet && $root env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends --no-remove build-essential; } >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        fail "It could not be installed; see above."
    fi
    rm -f "$log"
    say "Installed."
fi
exec 9<&-
exec cc "$@"
