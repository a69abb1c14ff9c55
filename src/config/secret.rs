//! Secrets: written out, in a file ("file:/path"), or in the environment
//! ("${NAME}"). The environment is read here and nowhere else.

use std::path::Path;

use super::document::Item;

/// Longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 4096;

/// Looks up an environment variable.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// The secret `item` names. `None` after a problem was recorded.
pub fn resolve(item: &Item<'_, '_>, environment: Environment<'_>) -> Option<String> {
    let written = item.text()?;
    let secret = if let Some(path) = written.strip_prefix("file:") {
        from_file(item, path)?
    } else if let Some(name) = written
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
    {
        from_environment(item, name, environment)?
    } else {
        written.to_owned()
    };
    if secret.is_empty() {
        item.problem(
            format!("`{}` is empty", item.path()),
            "write the secret, \"file:/path\" or \"${NAME}\", or leave the key out",
        );
        return None;
    }
    if secret.len() > SECRET_BYTES_MAX {
        item.problem(
            format!("`{}` is longer than {SECRET_BYTES_MAX} bytes", item.path()),
            "check that this names the right file",
        );
        return None;
    }
    Some(secret)
}

fn from_file(item: &Item<'_, '_>, path: &str) -> Option<String> {
    // A relative path is seen from the config, as it may be started anywhere.
    let beside = item.file().parent().unwrap_or(Path::new(""));
    let path = beside.join(path);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let line = text.strip_suffix('\n').unwrap_or(&text);
            Some(line.strip_suffix('\r').unwrap_or(line).to_owned())
        }
        Err(cause) => {
            item.problem(
                format!("cannot read the file of `{}`: {cause}", item.path()),
                format!(
                    "put the secret into {} and let this user read it",
                    path.display()
                ),
            );
            None
        }
    }
}

fn from_environment(
    item: &Item<'_, '_>,
    name: &str,
    environment: Environment<'_>,
) -> Option<String> {
    let value = environment(name);
    if value.is_none() {
        item.problem(
            format!("the environment variable of `{}` is not set", item.path()),
            format!("set {name} before starting keyferry"),
        );
    }
    value
}
