//! The file mode that a socket gets of which the file says none: what the
//! process's umask leaves, as with the original.

use std::fs;

/// All permission bits.
const ALL: u32 = 0o777;

/// The usual umask, where the system does not tell.
const UMASK_USUAL: u32 = 0o022;

/// Permission bits of a socket that is bound without saying any.
pub fn mode_left() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    ALL & !umask.unwrap_or(UMASK_USUAL)
}
