//! Commands as RESP arrays, read apart from the code that writes and scans them.

/// Arguments of the commands that `bytes` are, each of them; fails if they are not.
pub fn commands(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let (mut rest, mut commands) = (bytes, Vec::new());
    while !rest.is_empty() {
        let count = number(&mut rest, b'*');
        commands.push((0..count.max(0)).map(|_| bulk(&mut rest)).collect());
    }
    commands
}

fn number(rest: &mut &[u8], sigil: u8) -> i64 {
    assert_eq!(rest[0], sigil);
    let end = rest
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .expect("a line");
    let text = std::str::from_utf8(&rest[1..end]).expect("digits");
    *rest = &rest[end + 2..];
    text.parse().expect("a number")
}

fn bulk<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = usize::try_from(number(rest, b'$')).expect("a length");
    let (text, behind) = rest.split_at(len);
    *rest = behind.strip_prefix(b"\r\n").expect("an end of a line");
    text
}
