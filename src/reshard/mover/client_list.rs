//! The text of CLIENT LIST: a line a connection, `name=value` pairs between spaces.

/// The value of `name` in one line; `None` where the server does not know it.
pub fn client_field<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    line.split(' ')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The ids of connections whose name `is_wanted`.
pub fn client_ids(list: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<&str> {
    list.lines()
        .filter(|line| client_field(line, "name").is_some_and(&is_wanted))
        .filter_map(|line| client_field(line, "id"))
        .collect()
}
