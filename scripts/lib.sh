# Sourced by serve, test and check: a virtual environment in .venv, what belongs in it, and what Debian must add.
# Each step looks first whether it has been done, so that a second run starts at once.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
lists_are_new=no

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

may_be_root() {
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

is_installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# debian_packages NAME...: install those that are missing. Fails, with a word of what is missing, where that cannot be done.
debian_packages() {
    local name missing=()
    for name in "$@"; do
        is_installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null || ! may_be_root; then
        say "please install by hand (this is not Debian, or needs root): ${missing[*]}"
        return 1
    fi
    say "installing ${missing[*]}"
    if [ "$lists_are_new" = no ]; then
        as_root apt-get update -qq || say "the package lists could not be brought up to date; trying with the old ones"
        lists_are_new=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Prints the first Python on the PATH that is new enough.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.14; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    local python
    # Shebangs hold absolute paths: an environment that was moved, or whose Python is gone, is made anew.
    if [ "$(cat "$VENV/.made-in" 2>/dev/null)" = "$VENV" ] && "$VENV/bin/python" -c '' 2>/dev/null; then
        return
    fi
    python=$(find_python) || { debian_packages python3 python3-venv && python=$(find_python); } || {
        say "Python 3.11 or newer is needed"
        return 1
    }
    # Debian splits the standard library: without its venv package there is no ensurepip.
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        debian_packages "$("$python" -c 'import sys; print("python{}.{}-venv".format(*sys.version_info))')"
    say "making a virtual environment with $("$python" --version)"
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
    echo "$VENV" >"$VENV/.made-in"
}

# install_extra EXTRA: tomowire, editable, with one of its extras; `dev` contains `server` and `docs`.
install_extra() {
    local extra=$1 wanted
    make_venv
    wanted=$(sha256sum "$ROOT/pyproject.toml" | cut -d ' ' -f 1)
    for stamp in "$VENV/.has-dev" "$VENV/.has-$extra"; do
        [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
    done
    say "installing tomowire[$extra]"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$ROOT[$extra]"
    echo "$wanted" >"$VENV/.has-$extra"
}
