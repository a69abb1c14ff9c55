//! RDB scanner, value decoder, DUMP payloads: no sockets.
