# Everything CI runs, in one command.
test:
    scripts/test

fmt:
    cargo fmt --all

lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

demo:
    cargo run --release -- demo

openapi:
    cargo run -q -p api --example openapi > openapi.json

interop *TESTS:
    cargo build --release -p node && python3 interop/run.py target/release/tandem {{TESTS}}

bench:
    cargo build --release -p node && python3 bench/calls.py target/release/tandem && python3 bench/echo.py target/release/tandem

deny:
    cargo deny check
