//! Holds the table of ARCHITECTURE.md: which crate may use which, and what each must never name.

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Crate, our crates it may use, other crates it must never use.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    ("model", &[], &["sqlx", "tokio", "axum", "hyper"]),
    ("signaling", &[], &["tokio", "rustix", "socket2", "getrandom", "rand", "sdp-types"]),
    ("media", &[], &["tokio", "rustix", "socket2", "getrandom", "rand"]),
    ("store", &["model"], &["axum", "hyper"]),
    ("cluster", &["model"], &["sqlx", "axum"]),
    ("gateway", &["model", "signaling", "media", "cluster"], &["sqlx", "axum", "hyper"]),
    ("api", &["model", "store", "cluster"], &["sqlx", "rustix", "socket2"]),
    ("cli", &["api", "model"], &["store", "gateway", "sqlx", "axum"]),
    (
        "node",
        &["model", "signaling", "media", "store", "cluster", "gateway", "api", "cli"],
        &["sqlx", "axum"],
    ),
];

#[test]
fn every_crate_uses_only_what_the_table_allows() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let ours: Vec<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some((_, allowed, never)) = TABLE.iter().find(|(crate_name, ..)| *crate_name == name) else {
            panic!("crate {name} is not in the table of ARCHITECTURE.md");
        };
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            let used = dependency.name.as_str();
            if ours.iter().any(|o| o == used) {
                assert!(allowed.contains(&used), "{name} must not use {used}");
            }
            assert!(!never.contains(&used), "{name} must never name {used}");
        }
    }
}
