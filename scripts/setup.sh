# Change to the checkout's root and install a lock into .venv. Sourced by the scripts beside it, never run. With
# `setup_level=serving` set before, the lock is deploy/locks/up.lock, for serving only; else requirements.lock, with the
# tools of development too. Neither removes what the other installed. Needs Python 3.11 or newer with venv, or uv; no
# root, no service. Does nothing when nothing has changed; prints one line a step otherwise.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }

# Print the newest Python that the lock supports; a name on PATH may be a shim of a version that is not installed.
find_python() {
  local name
  for name in "${PYTHON:-}" python3.14 python3.13 python3.12 python3.11 python3 python; do
    if [ -n "$name" ] && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
}

make_venv() {
  local python
  python="$(find_python)"
  rm -rf .venv
  if command -v uv >/dev/null; then
    say "making .venv with uv"
    # Without an installed Python, uv downloads one.
    uv venv --quiet --python "${python:-3.13}" .venv
  elif [ -z "$python" ]; then
    say "Python 3.11 or newer is needed and none was found (python3 is: $(python3 --version 2>&1 || true))."
    say "Install one (Debian 12 or Ubuntu: apt install python3 python3-venv; macOS: brew install python), or uv."
    return 1
  elif ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    say "$python cannot make virtual environments: its venv module is missing."
    say "Debian or Ubuntu: apt install python3-venv. Or install uv, which needs nothing else."
    return 1
  else
    say "making .venv with $("$python" --version)"
    # Installing pip takes longer than all other packages of a first start; a pip outside does as well.
    if has_pip "$python"; then "$python" -m venv --without-pip .venv; else "$python" -m venv .venv; fi
  fi
}

# Test that this Python's pip can install into another environment (--python: pip 22.3).
has_pip() { "$1" -m pip --python "$1" --version >/dev/null 2>&1; }

run_pip() {
  if .venv/bin/python -c 'import pip' 2>/dev/null; then
    .venv/bin/python -m pip "$@"
  else
    "$(find_python)" -m pip --python .venv/bin/python "$@"
  fi
}

# Print the uv to install with: from PATH, or from .venv, installed by pip. None when pip is configured with an index or
# a proxy, which uv would not know.
find_uv() {
  if command -v uv; then return; fi
  if run_pip config list 2>/dev/null | grep -qE '\.(index-url|no-index|proxy)='; then return; fi
  if [ ! -x .venv/bin/uv ]; then
    run_pip install -qq --no-compile --require-hashes --no-deps -r deploy/locks/installer.lock >&2 || return 0
  fi
  echo .venv/bin/uv
}

install_locked() {
  local lock="$1" uv
  say "installing $(grep -c '^[A-Za-z0-9]' "$lock") packages of $lock"
  uv="$(find_uv)"
  # uv compiles on all cores; otherwise several processes of the first start would compile the same modules.
  if [ -n "$uv" ] && "$uv" pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes --no-deps \
    -r "$lock"; then
    "$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
  else
    [ -z "$uv" ] || say "uv failed; trying pip"
    run_pip install -qq --no-compile --require-hashes --no-deps -r "$lock"
    run_pip install -qq --no-compile --no-deps --no-build-isolation -e .
  fi
}

# The stamp includes the path: the programs of a moved .venv, and its pointer to the checkout, name the old one.
stamp_of() { { pwd && cat "$1" pyproject.toml; } | cksum; }
is_of_here() { .venv/bin/python -c '' 2>/dev/null && grep -qsF "$(pwd -P)/.venv" .venv/bin/activate; }
is_stamped() { [ "$(cat "$2" 2>/dev/null || true)" = "$(stamp_of "$1")" ]; }

is_installed() {
  is_of_here || return 1
  is_stamped requirements.lock .venv/.installed && return
  [ "$1" = deploy/locks/up.lock ] && is_stamped "$1" .venv/.installed-serving
}

if [ "${setup_level:-}" = serving ]; then
  lock=deploy/locks/up.lock stamp=.venv/.installed-serving
else
  lock=requirements.lock stamp=.venv/.installed
fi
if ! is_installed "$lock"; then
  is_of_here || make_venv
  install_locked "$lock"
  stamp_of "$lock" >"$stamp"
fi
