//! Keyspace notifications of a source: whether all changes are told, switching
//! that on for the job, and putting back what was set before.
//!
//! ```text
//! CONFIG GET --all are told--> followed by them
//!     | some are not --CONFIG SET <old>AE--> followed by them; <old> is put back at the end
//!     '-- refused --------- refused --'----> Refused: repeated passes
//! ```
//!
//! What was set before is also kept in a file until it is put back, for the run
//! after one that was killed. Invariant: a setting that is not ours any more is
//! left alone.

use std::path::{Path, PathBuf};

use crate::resp::Value;

use super::super::error::MoveError;
use super::super::link::Link;

const SETTING: &[u8] = b"notify-keyspace-events";
const READ: &str = "read notify-keyspace-events (CONFIG GET)";
const SWITCH: &str = "switch notifications (CONFIG SET)";
/// Every class that changes of keys belong to; a server that knows no more
/// calls them `A`.
const CLASSES: &str = "g$lshzxet";

/// The channels that changes are told on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `__keyevent@<db>__:<event>`, the key being the message.
    Event,
    /// `__keyspace@<db>__:<key>`.
    Space,
}

impl Form {
    /// The pattern of all its channels.
    pub(super) fn pattern(self) -> &'static [u8] {
        match self {
            Form::Event => b"__keyevent@*__:*",
            Form::Space => b"__keyspace@*__:*",
        }
    }
}

/// How all changes are told with this setting; `None` if some are not.
fn form(setting: &str) -> Option<Form> {
    let has = |flag: char| setting.contains(flag);
    if !has('A') && !CLASSES.chars().all(has) {
        return None;
    }
    match (has('E'), has('K')) {
        (true, _) => Some(Form::Event),
        (false, true) => Some(Form::Space),
        (false, false) => None,
    }
}

/// The server's words if it does not let us, or the setting.
async fn setting(link: &mut Link) -> Result<Result<String, String>, MoveError> {
    let reply = link.ask(READ, &[b"CONFIG", b"GET", SETTING]).await?;
    Ok(match &reply {
        Value::Error(text) => Err(String::from_utf8_lossy(text).into_owned()),
        Value::Array(pair) => match pair.get(1).and_then(Value::as_bytes) {
            Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
            None => Err("the server does not know notify-keyspace-events".to_owned()),
        },
        _ => Err("CONFIG GET has an odd reply".to_owned()),
    })
}

async fn set(link: &mut Link, to: &str) -> Result<Result<(), String>, MoveError> {
    let args: [&[u8]; 4] = [b"CONFIG", b"SET", SETTING, to.as_bytes()];
    Ok(match link.ask(SWITCH, &args).await? {
        Value::Error(text) => Err(String::from_utf8_lossy(&text).into_owned()),
        _ => Ok(()),
    })
}

/// Why notifications cannot be had, if so. Changes nothing: a setting that does
/// not do is set to what it is.
pub(in crate::reshard::mover) async fn why_refused(
    link: &mut Link,
) -> Result<Option<String>, MoveError> {
    let now = match setting(link).await? {
        Err(why) => return Ok(Some(why)),
        Ok(now) => now,
    };
    if form(&now).is_some() {
        return Ok(None);
    }
    Ok(set(link, &now).await?.err())
}

/// Notifications of one source, as the job needs them.
#[derive(Debug)]
pub(super) struct Notices {
    pub(super) form: Form,
    /// What was set, and what we made of it; `None` if it did as it was.
    changed: Option<Changed>,
}

#[derive(Debug)]
struct Changed {
    before: String,
    ours: String,
    kept_in: Option<PathBuf>,
}

impl Notices {
    /// Switches them on if need be; the server's words if it refuses. `earlier`
    /// is what this run did before.
    pub(super) async fn switch_on(
        link: &mut Link,
        keep_in: Option<&Path>,
        earlier: Option<Notices>,
    ) -> Result<Result<Notices, String>, MoveError> {
        let now = match setting(link).await? {
            Err(why) => return Ok(Err(why)),
            Ok(now) => now,
        };
        if let Some(form) = form(&now) {
            if let Some(earlier) = earlier.filter(|earlier| earlier.is_ours(&now)) {
                return Ok(Ok(earlier));
            }
            // Of a run that was killed: it is still to be put back.
            let before = keep_in.and_then(|path| std::fs::read_to_string(path).ok());
            let changed = before.map(|before| Changed {
                before,
                ours: now,
                kept_in: keep_in.map(Path::to_path_buf),
            });
            return Ok(Ok(Notices { form, changed }));
        }
        if let Some(path) = keep_in {
            keep(path, &now);
        }
        if let Err(why) = set(link, &format!("{now}AE")).await? {
            forget(keep_in);
            return Ok(Err(why));
        }
        // The server writes its flags in an order of its own.
        let ours = match setting(link).await? {
            Ok(ours) => ours,
            Err(why) => return Ok(Err(why)),
        };
        let Some(form) = form(&ours) else {
            return Ok(Err(format!("set to {now}AE it says {ours}")));
        };
        tracing::info!(source = %link.server(), before = now, ours, "notifications are on for this job");
        let changed = Some(Changed {
            before: now,
            ours,
            kept_in: keep_in.map(Path::to_path_buf),
        });
        Ok(Ok(Notices { form, changed }))
    }

    fn is_ours(&self, now: &str) -> bool {
        let changed = self.changed.as_ref();
        changed.is_some_and(|changed| changed.ours == now)
    }

    /// Whether all changes are still told.
    pub(super) async fn still_on(&self, link: &mut Link) -> Result<bool, MoveError> {
        let now = setting(link).await?;
        Ok(now.is_ok_and(|now| form(&now) == Some(self.form)))
    }

    /// Puts back what was set before, unless somebody else has changed it since.
    pub(super) async fn put_back(&self, link: &mut Link) -> Result<(), MoveError> {
        let Some(changed) = &self.changed else {
            return Ok(());
        };
        if setting(link).await? == Ok(changed.ours.clone())
            && let Err(why) = set(link, &changed.before).await?
        {
            return Err(link.answered(SWITCH, why.as_bytes()));
        }
        forget(changed.kept_in.as_deref());
        Ok(())
    }
}

fn keep(path: &Path, setting: &str) {
    let dir = path.parent().unwrap_or(Path::new("."));
    let kept = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(path, setting));
    if let Err(error) = kept {
        let path = path.display();
        tracing::warn!(%path, %error, setting, "the setting of notify-keyspace-events could not be kept in a file: a run that is killed will not be able to put it back");
    }
}

fn forget(path: Option<&Path>) {
    let Some(path) = path else { return };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let path = path.display();
            tracing::warn!(%path, %error, "a file of no more use could not be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_tell_of_all_changes_are_known() {
        for (setting, expected) in [
            ("", None),
            ("A", None),
            ("AE", Some(Form::Event)),
            ("AKE", Some(Form::Event)),
            ("AKmn", Some(Form::Space)),
            ("g$lszxetE", None),
            ("g$lshzxetK", Some(Form::Space)),
            ("xE", None),
        ] {
            assert_eq!(form(setting), expected, "{setting}");
        }
    }
}
