//! HyperLogLogs: strings of Redis' format, byte for byte.
//!
//! ```text
//! | HYLL | encoding 1 | 0 3 | cardinality 8, little-endian | registers |
//!
//! dense   16,384 registers of 6 bits, low ones first
//! sparse  00llllll           l+1 registers of 0
//!         01llllll llllllll  l+1 registers of 0
//!         1vvvvvll           l+1 registers of v+1
//! ```
//! The highest bit of the cardinality says that it must be counted anew; the others stay
//! what they were. It is sparse until it grows beyond `hll-sparse-max-bytes`, or a register
//! beyond 32; never again then.

mod sparse;

use std::ops::ControlFlow;

use sparse::Run;

/// Registers of each.
pub const REGISTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 14;
const REGISTER_BITS: usize = 6;
const REGISTER_MAX: u16 = 63;
/// Bits of a hash that a register counts in.
const COUNTED_BITS: usize = 50;
const HEAD_BYTES: usize = 16;
const DENSE_BYTES: usize = HEAD_BYTES + REGISTERS * REGISTER_BITS / 8;
const MAGIC: &[u8; 4] = b"HYLL";
const HASH_SEED: u64 = 0xadc8_3b19;
const ALPHA_INFINITY: f64 = 0.721_347_520_444_481_7;

/// Values of all registers.
pub type Registers = [u8; REGISTERS];

/// Registers that do not add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupted;

/// How registers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// 6 bits each.
    Dense,
    /// As runs of equal ones.
    Sparse,
}

/// One that is read or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HyperLogLog(Vec<u8>);

impl HyperLogLog {
    /// One that counted nothing.
    pub fn new() -> Self {
        let mut bytes = vec![0; HEAD_BYTES];
        bytes.splice(..MAGIC.len(), *MAGIC);
        if let Some(encoding) = bytes.get_mut(4) {
            *encoding = 1;
        }
        sparse::push_zeros(&mut bytes, REGISTERS);
        Self(bytes)
    }

    /// A string that looks like one. `None` if it does not.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let is_right = match (bytes.starts_with(MAGIC), bytes.get(4)) {
            (true, Some(0)) => bytes.len() == DENSE_BYTES,
            (true, Some(1)) => bytes.len() >= HEAD_BYTES,
            _ => false,
        };
        is_right.then(|| Self(bytes.to_vec()))
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How its registers are written.
    pub fn encoding(&self) -> Encoding {
        match self.0.get(4) {
            Some(0) => Encoding::Dense,
            _ => Encoding::Sparse,
        }
    }

    /// The cardinality, if it is known.
    pub fn known_count(&self) -> Option<u64> {
        let bytes = self.0.get(8..HEAD_BYTES)?.first_chunk::<8>()?;
        let count = u64::from_le_bytes(*bytes);
        (count >> 63 == 0).then_some(count)
    }

    /// Keeps the cardinality.
    pub fn keep_count(&mut self, count: u64) {
        if let Some(place) = self.0.get_mut(8..HEAD_BYTES) {
            place.copy_from_slice(&count.to_le_bytes());
        }
    }

    /// The cardinality must be counted anew.
    pub fn forget_count(&mut self) {
        if let Some(highest) = self.0.get_mut(HEAD_BYTES - 1) {
            *highest |= 0x80;
        }
    }

    /// Counts an element. Whether a register grew.
    ///
    /// # Errors
    /// [`Corrupted`] if the registers do not add up.
    pub fn add(&mut self, element: &[u8], sparse_bytes_max: u64) -> Result<bool, Corrupted> {
        let hash = murmur64a(element, HASH_SEED);
        let index = hash as usize & (REGISTERS - 1);
        let rest = hash >> INDEX_BITS | 1 << COUNTED_BITS;
        self.raise(index, rest.trailing_zeros() as u8 + 1, sparse_bytes_max)
    }

    /// Lets a register be `value` at least. Whether it grew.
    ///
    /// # Errors
    /// [`Corrupted`] if the registers do not add up.
    pub fn raise(
        &mut self,
        index: usize,
        value: u8,
        sparse_bytes_max: u64,
    ) -> Result<bool, Corrupted> {
        if self.encoding() == Encoding::Sparse {
            let raised = sparse::raise(&mut self.0, index, value, sparse_bytes_max)?;
            match raised {
                sparse::Raised::No => return Ok(false),
                sparse::Raised::Yes => {
                    self.forget_count();
                    return Ok(true);
                }
                sparse::Raised::MustBeDense => self.make_dense()?,
            }
        }
        let registers = self.0.get_mut(HEAD_BYTES..).unwrap_or(&mut []);
        let is_higher = dense_register(registers, index) < value;
        if is_higher {
            set_dense_register(registers, index, value);
        }
        Ok(is_higher)
    }

    /// Writes the registers one by one.
    ///
    /// # Errors
    /// [`Corrupted`] if they do not add up.
    pub fn make_dense(&mut self) -> Result<(), Corrupted> {
        if self.encoding() == Encoding::Dense {
            return Ok(());
        }
        let registers = self.registers()?;
        self.0.truncate(HEAD_BYTES);
        self.0.resize(DENSE_BYTES, 0);
        if let Some(encoding) = self.0.get_mut(4) {
            *encoding = 0;
        }
        let dense = self.0.get_mut(HEAD_BYTES..).unwrap_or(&mut []);
        for (index, value) in registers
            .iter()
            .enumerate()
            .filter(|(_, value)| **value > 0)
        {
            set_dense_register(dense, index, *value);
        }
        Ok(())
    }

    /// All registers.
    ///
    /// # Errors
    /// [`Corrupted`] if they do not add up.
    pub fn registers(&self) -> Result<Box<Registers>, Corrupted> {
        let mut all = Box::new([0; REGISTERS]);
        self.merge_into(&mut all)?;
        Ok(all)
    }

    /// Lets registers be what these are at least.
    ///
    /// # Errors
    /// [`Corrupted`] if they do not add up.
    pub fn merge_into(&self, all: &mut Registers) -> Result<(), Corrupted> {
        let bytes = self.0.get(HEAD_BYTES..).unwrap_or(&[]);
        if self.encoding() == Encoding::Dense {
            for (index, register) in all.iter_mut().enumerate() {
                *register = dense_register(bytes, index).max(*register);
            }
            return Ok(());
        }
        let mut at = 0;
        sparse::each_run(bytes, &mut |run| {
            let Run { value, len } = run;
            let Some(registers) = all.get_mut(at..at + len) else {
                at = usize::MAX;
                return ControlFlow::Break(());
            };
            for register in registers {
                *register = value.max(*register);
            }
            at += len;
            ControlFlow::Continue(())
        });
        if at == REGISTERS {
            Ok(())
        } else {
            Err(Corrupted)
        }
    }

    /// Counts how many elements there were.
    ///
    /// # Errors
    /// [`Corrupted`] if the registers do not add up.
    pub fn count(&self) -> Result<u64, Corrupted> {
        Ok(count(&*self.registers()?))
    }

    /// The runs of a sparse one, as PFDEBUG DECODE tells them.
    pub fn runs_text(&self) -> String {
        sparse::text(self.0.get(HEAD_BYTES..).unwrap_or(&[]))
    }
}

impl Default for HyperLogLog {
    fn default() -> Self {
        Self::new()
    }
}

/// How many elements registers stand for (Otmar Ertl, arXiv:1702.01284).
pub fn count(registers: &Registers) -> u64 {
    let mut histogram = [0_u32; 64];
    for register in registers {
        if let Some(count) = histogram.get_mut(usize::from(*register)) {
            *count += 1;
        }
    }
    let of = |value: usize| f64::from(histogram.get(value).copied().unwrap_or(0));
    let all = REGISTERS as f64;
    let mut z = all * tau((all - of(COUNTED_BITS + 1)) / all);
    for value in (1..=COUNTED_BITS).rev() {
        z += of(value);
        z *= 0.5;
    }
    z += all * sigma(of(0) / all);
    (ALPHA_INFINITY * all * all / z).round() as u64
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// Its byte, and where in that it begins.
fn dense_place(index: usize) -> (usize, u32) {
    let bit = index * REGISTER_BITS;
    (bit / 8, (bit % 8) as u32)
}

fn dense_register(registers: &[u8], index: usize) -> u8 {
    let (at, shift) = dense_place(index);
    let byte = |at: usize| u16::from(registers.get(at).copied().unwrap_or(0));
    ((byte(at) | byte(at + 1) << 8) >> shift & REGISTER_MAX) as u8
}

fn set_dense_register(registers: &mut [u8], index: usize, value: u8) {
    let (at, shift) = dense_place(index);
    let mask = (REGISTER_MAX << shift).to_le_bytes();
    let value = (u16::from(value) << shift).to_le_bytes();
    let places = registers.iter_mut().skip(at);
    for (place, (mask, value)) in places.zip(mask.into_iter().zip(value)) {
        *place = *place & !mask | value;
    }
}

/// MurmurHash64A.
fn murmur64a(bytes: &[u8], seed: u64) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        word ^= word >> SHIFT;
        hash = (hash ^ word.wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let rest = rest
            .iter()
            .rev()
            .fold(0, |all, byte| all << 8 | u64::from(*byte));
        hash = (hash ^ rest).wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> SHIFT).wrapping_mul(FACTOR);
    hash ^ hash >> SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_counted_about_right_in_both_encodings() {
        let mut sparse = HyperLogLog::new();
        let mut dense = HyperLogLog::new();
        dense.make_dense().expect("registers");
        for number in 0..20_000 {
            let element = format!("element {number}");
            let grown = sparse.add(element.as_bytes(), 3000);
            assert_eq!(grown, dense.add(element.as_bytes(), 3000));
            if number == 500 {
                assert_eq!(sparse.encoding(), Encoding::Sparse);
                assert_eq!(sparse.registers(), dense.registers());
            }
        }
        assert_eq!(sparse.encoding(), Encoding::Dense);
        assert_eq!(sparse.registers(), dense.registers());
        let count = sparse.count().expect("registers");
        assert!((19_500..20_500).contains(&count), "{count}");
        assert_eq!(HyperLogLog::new().count(), Ok(0));
    }

    #[test]
    fn registers_that_do_not_add_up_are_told() {
        let mut bytes = HyperLogLog::new().as_bytes().to_vec();
        bytes.truncate(17);
        let mut torn = HyperLogLog::from_bytes(&bytes).expect("its head is right");
        assert_eq!(torn.count(), Err(Corrupted));
        assert_eq!(torn.make_dense(), Err(Corrupted));
        bytes.extend_from_slice(&[0x7f; 3]);
        let mut long = HyperLogLog::from_bytes(&bytes).expect("its head is right");
        assert_eq!(long.count(), Err(Corrupted));
        assert!(long.add(b"x", 3000).is_ok());
        bytes.truncate(16);
        let mut empty = HyperLogLog::from_bytes(&bytes).expect("its head is right");
        assert_eq!(empty.add(b"x", 3000), Err(Corrupted));
        assert_eq!(HyperLogLog::from_bytes(b"HYLL"), None);
    }

    #[test]
    fn bytes_are_those_of_redis() {
        let mut hll = HyperLogLog::new();
        for element in [b"a", b"b", b"c"] {
            assert_eq!(hll.add(element, 3000), Ok(true));
        }
        let registers = b"`\xf3\x80P\xb1\x84K\xfb\x80BZ";
        let head = b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80";
        assert_eq!(hll.as_bytes(), [head.as_slice(), registers].concat());
        assert_eq!(hll.known_count(), None);
        hll.keep_count(hll.count().expect("registers"));
        let head = b"HYLL\x01\0\0\0\x03\0\0\0\0\0\0\0";
        assert_eq!(hll.as_bytes(), [head.as_slice(), registers].concat());
    }
}
