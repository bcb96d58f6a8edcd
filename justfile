# Recipes for people. Each is a line that could be typed; what CI runs is .ci/run.

# list the recipes
default:
    @just --list

# everything CI checks, or only the steps named: `just check fmt test`
check *steps:
    .ci/run {{ steps }}

# format the code
fmt:
    cargo fmt --all

# the tests that need the toolchain alone
test:
    cargo test --workspace

# the tests that need strace, Prometheus and polkadot.js, which are installed where missing
test-system:
    .ci/run system

# the whole story on this machine, self-checking
demo *arguments:
    cargo run --release -- demo {{ arguments }}

# performance questions, one file each
bench *arguments:
    cargo bench -p supernode-benches {{ arguments }}

# write docs/BENCHMARKS.md from the rows in benches/results
bench-report:
    cargo run -p supernode-benches --bin bench-report

# rewrite the golden vectors after a deliberate change of format
vectors:
    UPDATE_VECTORS=1 cargo test -p supernode-protocol --tests

# hostile bytes for one decoder: `just fuzz request 600`; without a target it lists them
fuzz *arguments:
    protocol/fuzz/run {{ arguments }}
