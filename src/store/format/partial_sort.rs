//! Sorting only what is asked for, as Redis does (Bentley and McIlroy's quicksort, which
//! leaves alone the parts that are not wanted). It is not stable: what Redis answers
//! first of equals depends on its every step, so these are the same.

use std::cmp::Ordering;
use std::ops::Range;

/// Below so many elements they are sorted by insertion.
const FEW: usize = 7;
/// Above so many the pivot is the middle of nine elements.
const MANY: usize = 40;

/// Sorts so that `wanted` of the slice is as if all of it was sorted.
pub fn partial_sort<T>(
    slice: &mut [T],
    wanted: Range<usize>,
    compare: &impl Fn(&T, &T) -> Ordering,
) {
    let mut part = 0..slice.len();
    loop {
        let Some(rest) = slice.get_mut(part.clone()) else {
            return;
        };
        if rest.len() < FEW {
            return insert_all(rest, compare);
        }
        let (less, greater) = split(rest, compare);
        let from = part.start;
        let (less, greater) = (from..from + less, from + greater..part.end);
        let is_wanted =
            |of: &Range<usize>| of.len() > 1 && wanted.start < of.end && wanted.end > of.start;
        if is_wanted(&less)
            && let Some(rest) = slice.get_mut(less.clone())
        {
            let relative = wanted.start.saturating_sub(less.start)..wanted.end - less.start;
            partial_sort(rest, relative, compare);
        }
        if !is_wanted(&greater) {
            return;
        }
        part = greater;
    }
}

fn insert_all<T>(slice: &mut [T], compare: &impl Fn(&T, &T) -> Ordering) {
    for end in 1..slice.len() {
        for at in (1..=end).rev() {
            if compare(&slice[at - 1], &slice[at]) != Ordering::Greater {
                break;
            }
            slice.swap(at, at - 1);
        }
    }
}

/// Where the middle one of three is.
fn middle<T>(slice: &[T], [a, b, c]: [usize; 3], compare: &impl Fn(&T, &T) -> Ordering) -> usize {
    let is_less = |one: usize, other: usize| compare(&slice[one], &slice[other]).is_lt();
    let is_greater = |one: usize, other: usize| compare(&slice[one], &slice[other]).is_gt();
    match is_less(a, b) {
        true if is_less(b, c) => b,
        true if is_less(a, c) => c,
        true => a,
        false if is_greater(b, c) => b,
        false if is_less(a, c) => a,
        false => c,
    }
}

fn pivot<T>(slice: &[T], compare: &impl Fn(&T, &T) -> Ordering) -> usize {
    let n = slice.len();
    let (mut low, mut mid, mut high) = (0, n / 2, n - 1);
    if n == FEW {
        return mid;
    }
    if n > MANY {
        let d = n / 8;
        low = middle(slice, [low, low + d, low + 2 * d], compare);
        mid = middle(slice, [mid - d, mid, mid + d], compare);
        high = middle(slice, [high - 2 * d, high - d, high], compare);
    }
    middle(slice, [low, mid, high], compare)
}

/// Puts what is less than a pivot first, what is greater last: how many are less, and
/// where those that are greater begin.
fn split<T>(slice: &mut [T], compare: &impl Fn(&T, &T) -> Ordering) -> (usize, usize) {
    let n = slice.len();
    slice.swap(0, pivot(slice, compare));
    // Equals gather at both ends: those before `a`, and those behind `d`. `c` and `d` are
    // one behind what they name.
    let (mut a, mut b, mut c, mut d) = (1, 1, n, n);
    loop {
        while b < c {
            match compare(&slice[b], &slice[0]) {
                Ordering::Greater => break,
                Ordering::Equal => {
                    slice.swap(a, b);
                    a += 1;
                }
                Ordering::Less => {}
            }
            b += 1;
        }
        while b < c {
            match compare(&slice[c - 1], &slice[0]) {
                Ordering::Less => break,
                Ordering::Equal => {
                    slice.swap(c - 1, d - 1);
                    d -= 1;
                }
                Ordering::Greater => {}
            }
            c -= 1;
        }
        if b >= c {
            break;
        }
        slice.swap(b, c - 1);
        b += 1;
        c -= 1;
    }
    let equal_low = a.min(b - a);
    (0..equal_low).for_each(|at| slice.swap(at, b - equal_low + at));
    let equal_high = (d - c).min(n - d);
    (0..equal_high).for_each(|at| slice.swap(b + at, n - equal_high + at));
    (b - a, n - (d - c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_as_if_all_was_sorted() {
        let mut dice = fastrand::Rng::with_seed(3);
        for _ in 0..500 {
            let n = dice.usize(0..200);
            let values: Vec<u32> = (0..n).map(|_| dice.u32(0..40)).collect();
            let from = dice.usize(0..=n);
            let to = dice.usize(from..=n);
            let (mut partly, mut wholly) = (values.clone(), values);
            partial_sort(&mut partly, from..to, &u32::cmp);
            wholly.sort_unstable();
            assert_eq!(partly[from..to], wholly[from..to]);
        }
    }
}
