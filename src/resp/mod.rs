//! RESP2/RESP3 bytes <-> spans: incremental, bounded, no sockets.
