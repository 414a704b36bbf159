# Everything CI runs, in one command.
test:
    scripts/test

fmt:
    cargo fmt --all

lint:
    cargo clippy --profile checked --workspace --all-targets --locked -- -D warnings

demo:
    cargo run --release -- demo

openapi:
    cargo run -q -p api --example openapi > openapi.json

interop *TESTS:
    cargo build --profile checked -p node && python3 interop/run.py target/checked/tandem {{TESTS}}

bench:
    cargo build --release -p node && python3 bench/calls.py target/release/tandem && python3 bench/echo.py target/release/tandem

deny:
    cargo deny check

# A fuzz target (message, session) for so many seconds; the torture messages are its first inputs.
fuzz TARGET SECONDS="60":
    mkdir -p fuzz/corpus/{{TARGET}}
    cargo fuzz run -s none {{TARGET}} fuzz/corpus/{{TARGET}} crates/signaling/tests/rfc4475 -- -max_total_time={{SECONDS}} -max_len=16384 -timeout=5
