//! Reads which mistake the proof harness wants, in debug builds.
//!
//! In a release build there is no such setting; a process that finds it there
//! says so and ends, rather than let a test pass for the wrong reason.

use crate::planted::Planted;

use super::exit::ExitStatus;
use super::output::fail;

/// The environment variable that names a mistake of [`Planted`].
const SETTING: &str = "KEYFERRY_TEST_PLANTED";

/// Plants what is asked for; `Err` is how the process ends.
pub(super) fn plant_what_is_asked_for() -> Result<(), ExitStatus> {
    let Some(name) = std::env::var_os(SETTING) else {
        return Ok(());
    };
    match name.to_str().and_then(Planted::named) {
        Some(mistake) => take(mistake),
        None => {
            let names: Vec<&str> = Planted::ALL.iter().map(|one| one.name()).collect();
            fail(
                &format!("{SETTING} names no planted mistake: {}", name.display()),
                &format!("unset it, or use one of {}", names.join(", ")),
            );
            Err(ExitStatus::Usage)
        }
    }
}

#[cfg(debug_assertions)]
fn take(mistake: Planted) -> Result<(), ExitStatus> {
    let name = mistake.name();
    eprintln!(
        "warning: {SETTING}={name}: this process makes a MISTAKE ON PURPOSE and will lose or \
         spoil data; it is for tests only"
    );
    crate::planted::plant(mistake);
    Ok(())
}

#[cfg(not(debug_assertions))]
fn take(_mistake: Planted) -> Result<(), ExitStatus> {
    fail(
        &format!("{SETTING} is set, and a release build has no planted mistakes"),
        "unset it, or use a debug build for tests",
    );
    Err(ExitStatus::Usage)
}
