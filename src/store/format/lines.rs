//! Lines as a server says them before a snapshot comes: between them there may be empty ones,
//! by which it says that it is there.

/// Takes the first line off `input` that is not empty, without its end, and what stands before
/// it; nothing as long as none is whole.
pub fn take_line(input: &mut Vec<u8>) -> Option<String> {
    while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = input.drain(..=end).collect();
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if !text.is_empty() {
            return Some(text.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_one_by_one_and_empty_ones_not_at_all() {
        let mut input = b"\n\r\n+OK\r\n\n$5".to_vec();
        assert_eq!(take_line(&mut input).as_deref(), Some("+OK"));
        assert_eq!(take_line(&mut input), None);
        assert_eq!(input, b"$5", "half a line stays");
        input.extend_from_slice(b"\r\nhello");
        assert_eq!(take_line(&mut input).as_deref(), Some("$5"));
        assert_eq!(input, b"hello");
    }
}
