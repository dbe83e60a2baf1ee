# Each recipe runs one script; the script's first lines say what it does.

[private]
default:
    @just --list

# The main job from start to end, in a temporary directory
demo:
    scripts/demo

# Everything that CI runs; `just test --full` runs the long campaigns whole
test *arguments:
    scripts/test {{ arguments }}

# cache-helper beside `nix copy` on a large closure; writes docs/benchmarks.md
bench *arguments:
    scripts/bench {{ arguments }}

# Formatting, clippy, documentation, licences, advisories, scripts, workflows, lock file
lint:
    scripts/lint

# What only a machine with a network can check: what it is, or with --run whether it holds
check-with-network *arguments:
    scripts/check-with-network {{ arguments }}

# Install what is missing for demo, test, bench, lint or services
setup +what:
    scripts/setup {{ what }}

# Start this project's PostgreSQL, on a Unix socket, and say how to connect
db-start:
    scripts/database start

# Stop this project's PostgreSQL; its data stays
db-stop:
    scripts/database stop

# Whether this project's PostgreSQL runs, and how to connect
[no-exit-message]
db-status:
    scripts/database status

# Start this project's NATS with JetStream, on 127.0.0.1, and say where; NATS_PORT chooses the port
nats-start:
    scripts/nats start

# Stop this project's NATS; what JetStream keeps stays
nats-stop:
    scripts/nats stop

# Whether this project's NATS runs, and where
[no-exit-message]
nats-status:
    scripts/nats status
