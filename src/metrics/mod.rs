//! Per-worker counters and their rendering.
