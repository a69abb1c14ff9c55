//! Who still waits (BLPOP) at an old shard after the switch, as CLIENT LIST shows
//! it. Pure.
//!
//! A fence does not end a wait that began before it: what the way back pushes to
//! the old shard would be handed to a client of a late proxy, and once more to
//! whoever pops it on the new route. So waits end before the way back writes.

use super::OwnNames;
use crate::reshard::mover::client_field;

/// Whose waits are to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiters {
    /// Those of the proxies that are logged in as this epoch's user.
    Of(String),
    /// Everybody's but ours: a server that nothing is asked of any more, and that
    /// shows no epoch's user.
    All,
}

/// Numbers of the connections in `list`, the text of CLIENT LIST, that wait.
pub fn waiting(list: &str, whose: &Waiters, own: &OwnNames) -> Vec<String> {
    let found = list.lines().filter_map(|line| {
        let field = |name: &str| client_field(line, name);
        let flags = field("flags")?;
        let is_ours = field("name").unwrap_or_default().starts_with(own.prefix);
        if is_ours || !flags.contains('b') || flags.contains(['S', 'M']) {
            return None;
        }
        match (whose, field("user")) {
            (Waiters::Of(user), Some(found)) if user != found => None,
            // A server that shows no users has none.
            (Waiters::Of(_), None) => None,
            _ => field("id").map(str::to_owned),
        }
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_waits_and_is_not_ours_is_found() {
        let own = OwnNames {
            users: ["e3", "e4", "e5"].map(str::to_owned),
            prefix: "keyferry",
        };
        let line = |id: u64, name: &str, flags: &str, user: &str| {
            format!(
                "id={id} addr=10.0.0.9:1 fd=8 name={name} age=9 idle=1 flags={flags} db=0 cmd=blpop{user}\n"
            )
        };
        let list = [
            line(1, "", "b", " user=e3"),
            line(2, "", "N", " user=e3"),
            line(3, "", "b", " user=default"),
            line(4, "keyferry:job-1:walk", "b", " user=default"),
            line(5, "", "Sb", " user=default"),
        ]
        .concat();
        let of = |whose| waiting(&list, &whose, &own);
        assert_eq!(of(Waiters::Of("e3".to_owned())), ["1"]);
        assert_eq!(of(Waiters::All), ["1", "3"]);
        let before_users = line(7, "", "b", "");
        assert!(waiting(&before_users, &Waiters::Of("e3".to_owned()), &own).is_empty());
        assert_eq!(waiting(&before_users, &Waiters::All, &own), ["7"]);
    }
}
