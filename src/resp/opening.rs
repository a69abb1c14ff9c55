//! How requests of a pipeline begin: alike.

/// The first bytes of a request up to the end of its command's name, such as
/// `*2\r\n$3\r\nGET\r\n`: pipelines repeat them, and one comparison of two
/// words then stands for reading the count and the name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    word: u128,
    mask: u128,
    /// Offset after the name's CR LF.
    pub(super) len: usize,
    /// Arguments after the name.
    pub(super) left: usize,
}

impl Opening {
    /// Longer openings are read in full each time.
    const BYTES_MAX: usize = 16;

    #[inline(always)]
    pub(super) fn of(input: &[u8], name_end: usize, count: usize) -> Option<Self> {
        let len = name_end + 2;
        if len > Self::BYTES_MAX || count < 2 {
            return None;
        }
        let mask = u128::MAX >> (8 * (Self::BYTES_MAX - len));
        let word = u128::from_le_bytes(*input.first_chunk()?) & mask;
        Some(Self {
            word,
            mask,
            len,
            left: count - 1,
        })
    }

    #[inline(always)]
    pub(super) fn opens(&self, input: &[u8]) -> bool {
        input
            .first_chunk()
            .is_some_and(|first| u128::from_le_bytes(*first) & self.mask == self.word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_is_told_from_others_by_every_byte_of_it() {
        let get = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        let opening = Opening::of(get, 11, 2).unwrap();
        assert_eq!((opening.len, opening.left), (13, 1));
        assert!(opening.opens(b"*2\r\n$3\r\nGET\r\n$2\r\nkk\r\n"));
        for at in 0..opening.len {
            let mut other = *get;
            other[at] ^= 1;
            assert!(!opening.opens(&other), "{at}");
        }
        assert!(!opening.opens(&get[..15]), "too short to tell");
    }

    #[test]
    fn long_names_and_requests_of_one_word_have_none() {
        assert!(Opening::of(b"*1\r\n$4\r\nPING\r\n*1\r\n", 12, 1).is_none());
        assert!(Opening::of(b"*2\r\n$7\r\nHGETALL\r\n$1\r\nk\r\n", 15, 2).is_none());
    }
}
