# What CI runs and what people type are the same steps: `.ci/run` holds them, and this file names them.

export CARGO_TARGET_DIR := env("CARGO_TARGET_DIR", justfile_directory() / "target")

# The recipes.
default:
    @just --list

# Everything that CI runs.
check:
    .ci/run

# Formatting; `just fmt` mends it.
format:
    .ci/run format

# Format every file.
fmt:
    cargo fmt --all

# Imports, lengths, words, links and commands; `just house words cli/` shows one check, of some paths.
house *arguments:
    cargo run --quiet --locked --package antiphon-testing-house -- {{arguments}}

# The numbers that the mathematics is checked against are those their script makes.
vectors:
    .ci/run vectors

# Licences, banned crates, sources (needs cargo-deny).
deny:
    .ci/run deny

# Clippy, warnings denied.
lint:
    .ci/run lint

# Documentation, warnings denied.
doc:
    .ci/run doc

# All tests.
test:
    .ci/run test

# The book, without warnings (installs mdBook where it is missing).
book:
    .ci/run book

# Rewrite golden files, generated code and generated pages; look at the difference before committing it.
bless:
    UPDATE=1 cargo test --workspace --locked

# Train on generated digits.
example:
    cargo run --release -- run examples/spoken-digits.yaml

# Kill the processes of a job at random two hundred times: an hour or so on two cores. The seeds can be looked at one by one.
chaos:
    cargo run --release -- chaos examples/spoken-digits.yaml --set schedule.turns=300 --set schedule.lease_ttl=2s --set "checkpoints.every=40 turns" --every 2s --faults 6 --runs 200
