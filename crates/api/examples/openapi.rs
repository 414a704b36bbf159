//! Prints the description of the API: `cargo run -p api --example openapi > openapi.json`.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    out.write_all(api::openapi().to_pretty_json()?.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(())
}
