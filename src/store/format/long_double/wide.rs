//! Whole numbers of any length, as far as reading and writing a float needs them.

use std::cmp::Ordering;

/// Digits that a word has room for.
const DECIMALS: u32 = 19;

/// Words, the lowest first; the highest is not 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wide(Vec<u64>);

impl From<u64> for Wide {
    fn from(value: u64) -> Self {
        Self(if value == 0 { Vec::new() } else { vec![value] })
    }
}

impl Wide {
    pub(super) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bits(&self) -> usize {
        let highest = self.0.last().map_or(64, |word| word.leading_zeros());
        self.0.len() * 64 + 64 * usize::from(self.0.is_empty()) - highest as usize
    }

    pub(super) fn multiply_small(&mut self, factor: u64) {
        let mut carry = 0;
        for word in &mut self.0 {
            let product = u128::from(*word) * u128::from(factor) + carry;
            *word = product as u64;
            carry = product >> 64;
        }
        if carry != 0 {
            self.0.push(carry as u64);
        }
    }

    pub(super) fn multiply_power_of_ten(&mut self, power: usize) {
        let most = DECIMALS as usize;
        for _ in 0..power / most {
            self.multiply_small(10_u64.pow(DECIMALS));
        }
        self.multiply_small(10_u64.pow((power % most) as u32));
    }

    pub(super) fn add_small(&mut self, addend: u64) {
        let mut carry = addend;
        for word in &mut self.0 {
            if carry == 0 {
                return;
            }
            let (sum, is_over) = word.overflowing_add(carry);
            *word = sum;
            carry = u64::from(is_over);
        }
        if carry != 0 {
            self.0.push(carry);
        }
    }

    pub(super) fn shift_left(&mut self, bits: usize) {
        if self.is_zero() {
            return;
        }
        let (words, bits) = (bits / 64, bits % 64);
        if bits > 0 {
            let mut carry = 0;
            for word in &mut self.0 {
                let next = *word >> (64 - bits);
                *word = *word << bits | carry;
                carry = next;
            }
            if carry != 0 {
                self.0.push(carry);
            }
        }
        self.0.splice(0..0, std::iter::repeat_n(0, words));
    }

    /// The quotient, which must be below `2^bits`, and whether nothing is left.
    pub(super) fn divide_small(mut self, mut under: Wide, bits: usize) -> (u128, bool) {
        under.shift_left(bits - 1);
        let mut quotient = 0;
        for _ in 0..bits {
            quotient <<= 1;
            if self.compare(&under) != Ordering::Less {
                self.subtract(&under);
                quotient |= 1;
            }
            self.shift_left(1);
        }
        (quotient, self.is_zero())
    }

    fn compare(&self, other: &Wide) -> Ordering {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// What is subtracted must not be larger.
    fn subtract(&mut self, other: &Wide) {
        let mut borrow = false;
        let others = other.0.iter().chain(std::iter::repeat(&0));
        for (word, other) in self.0.iter_mut().zip(others) {
            let (first, is_below) = word.overflowing_sub(*other);
            let (second, is_again) = first.overflowing_sub(u64::from(borrow));
            *word = second;
            borrow = is_below || is_again;
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// In decimal digits.
    pub(super) fn decimal(mut self) -> String {
        let mut parts = Vec::new();
        while !self.is_zero() {
            let mut rest = 0_u128;
            for word in self.0.iter_mut().rev() {
                let value = rest << 64 | u128::from(*word);
                *word = (value / u128::from(10_u64.pow(DECIMALS))) as u64;
                rest = value % u128::from(10_u64.pow(DECIMALS));
            }
            self.trim();
            parts.push(rest as u64);
        }
        let mut text = parts.pop().unwrap_or(0).to_string();
        for part in parts.into_iter().rev() {
            text.push_str(&format!("{part:019}"));
        }
        text
    }
}
