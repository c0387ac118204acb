# Sourced by the other scripts: what they need, installed by name and said aloud.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
set -euo pipefail

WASM_BINDGEN=0.2.130
TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$TARGET_DIR
# What is installed for this project lies beside its builds, so that a second run finds it.
TOOLS=$TARGET_DIR/tools
export PATH=$TOOLS/bin:$PATH

say() { printf '\033[1m== %s\033[0m\n' "$*"; }

die() {
    echo "$*" >&2
    exit 1
}

need_rust() {
    command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup, then run this again"
    if command -v rustup >/dev/null; then
        for component in rustfmt clippy; do
            rustup component list --installed | grep -q "^$component" || {
                say "adding $component to the toolchain"
                rustup component add "$component"
            }
        done
    fi
}

need_wasm() {
    need_rust
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ]; then
        say "adding the target wasm32-unknown-unknown"
        rustup target add wasm32-unknown-unknown
    fi
    if [ "$(wasm-bindgen --version 2>/dev/null)" != "wasm-bindgen $WASM_BINDGEN" ]; then
        say "installing wasm-bindgen-cli $WASM_BINDGEN (about two minutes)"
        cargo install wasm-bindgen-cli --version "$WASM_BINDGEN" --root "$TOOLS" --target-dir "$TOOLS/build"
    fi
}

need_node() {
    command -v node >/dev/null || die "node is missing: install Node.js 20.19 or later, then run this again"
    if [ ! -d www/node_modules ] || [ www/package-lock.json -nt www/node_modules/.package-lock.json ]; then
        say "installing the page's packages"
        npm --prefix www ci --no-audit --no-fund
    fi
}

need_chromium() {
    CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
    if [ -z "$CHROMIUM" ]; then
        command -v apt-get >/dev/null || die "no Chromium found: install one or set CHROMIUM to its path"
        say "installing chromium"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null
        CHROMIUM=$(command -v chromium)
    fi
    export CHROMIUM
}
