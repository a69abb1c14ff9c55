//! The tap: poses as a replica of one shard and hands on what it sends.
