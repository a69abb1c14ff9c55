//! twemproxy's consistent hashing: a ring of MD5 points, bit for bit.
//!
//! Each server gets about 160 points in proportion to its weight; four come of
//! one MD5 over `name-i`. A key belongs to the first point at or after its
//! hash, past the last one to the first. Source: twemproxy 0.5.0,
//! `src/hashkit/nc_ketama.c`.
//!
//! Invariants: `points` is ascending, equal values keep the order of servers;
//! `starts[b]` is the first point whose top bits are `b` or more.

use super::layout::ShardIndex;

/// The ring. Points are (value, shard).
#[derive(Debug)]
pub(super) struct Ring {
    points: Vec<(u32, u16)>,
    /// About one bucket a point: MD5 spreads them evenly, so a search sees one or two.
    starts: Vec<u32>,
    /// How far a hash is shifted to give its bucket.
    shift: u32,
}

impl Ring {
    /// `servers` are (name, weight) in twemproxy's order; their number fits a `ShardIndex`.
    pub(super) fn new(servers: &[(&str, u32)]) -> Self {
        let total = servers
            .iter()
            .fold(0u32, |sum, &(_, weight)| sum.wrapping_add(weight));
        let mut points = Vec::with_capacity(servers.len() * 160);
        for (index, &(name, weight)) in (0u16..).zip(servers) {
            for round in 0..md5_rounds(weight, total, servers.len()) {
                points.extend(md5_points(name, round).map(|value| (value, index)));
            }
        }
        // Stable, as glibc's merge sort behind qsort: ties go to the lower server.
        points.sort_by_key(|&(value, _)| value);
        let bits = points.len().max(2).ilog2();
        let shift = u32::BITS - bits;
        let start = |bucket: u64| {
            points.partition_point(|&(value, _)| u64::from(value) < bucket << shift) as u32
        };
        let starts = (0..=1 << bits).map(start).collect();
        Self {
            points,
            starts,
            shift,
        }
    }

    /// The same ring with other numbers for its servers: `numbers[i]` for the `i`-th.
    pub(super) fn renumbered(mut self, numbers: &[ShardIndex]) -> Self {
        for (_, index) in &mut self.points {
            *index = numbers
                .get(usize::from(*index))
                .map_or(*index, |number| number.0);
        }
        self
    }

    /// The owner of a hash.
    #[inline]
    pub(super) fn owner(&self, hash: u32) -> ShardIndex {
        let bucket = (hash >> self.shift) as usize;
        let (first, end) = (
            self.starts[bucket] as usize,
            self.starts[bucket + 1] as usize,
        );
        let at = first + self.points[first..end].partition_point(|&(value, _)| value < hash);
        let point = self.points.get(at).or(self.points.first());
        // A ring has points: some server's share is at least 1/n, worth 39 rounds or more.
        ShardIndex(point.map_or(0, |&(_, index)| index))
    }

    /// All points, ascending.
    #[cfg(test)]
    pub(super) fn points(&self) -> &[(u32, u16)] {
        &self.points
    }
}

/// How many MD5s a server gets. Every step is rounded to f32 as in the original:
/// with f64 or integers, equal weights of 25 servers (and 304 other numbers up to
/// 3000) would give 160 points each where twemproxy gives 156.
fn md5_rounds(weight: u32, total: u32, servers: usize) -> u32 {
    let share = weight as f32 / total as f32;
    let rounds = share * POINTS_PER_SERVER / POINTS_PER_MD5 * servers as f32;
    // The original's epsilon, too small to matter at this width, kept as it is.
    let rounds = (f64::from(rounds) + 0.000_000_000_1) as f32;
    rounds.floor() as u32
}

/// Four points of MD5(`name-round`), read little-endian.
fn md5_points(name: &str, round: u32) -> [u32; 4] {
    let text = format!("{name}-{round}");
    let bytes = text.as_bytes();
    let digest = md5::compute(&bytes[..bytes.len().min(TEXT_BYTES_MAX)]).0;
    let mut points = [0; 4];
    for (point, bytes) in points.iter_mut().zip(digest.as_chunks::<4>().0) {
        *point = u32::from_le_bytes(*bytes);
    }
    points
}

const POINTS_PER_SERVER: f32 = 160.0;
const POINTS_PER_MD5: f32 = 4.0;
/// twemproxy writes `name-i` into a buffer of this many characters.
const TEXT_BYTES_MAX: usize = 272;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_twemproxys_unit_test() {
        let points = md5_points("server1", 8);
        assert_eq!((points[0], points[3]), (3_853_726_576, 2_667_054_752));
    }

    #[test]
    fn equal_weights_give_160_points_or_156() {
        let odd = [
            25, 47, 50, 55, 61, 71, 94, 100, 107, 109, 110, 115, 122, 142, 159, 163, 188, 193, 200,
            209, 214, 218, 219, 220, 230,
        ];
        for servers in 2..=230usize {
            let expected = if odd.contains(&servers) { 39 } else { 40 };
            assert_eq!(
                md5_rounds(1, servers as u32, servers),
                expected,
                "{servers} servers"
            );
        }
        let odd = (2..=3000usize)
            .filter(|&n| md5_rounds(1, n as u32, n) != 40)
            .count();
        assert_eq!(odd, 305);
    }

    #[test]
    fn a_name_too_long_for_the_buffer_is_cut() {
        let long = "n".repeat(300);
        assert_eq!(md5_points(&long, 0), md5_points(&long, 1));
    }

    #[test]
    fn a_search_in_buckets_finds_what_a_whole_search_does() {
        for servers in 2..30 {
            let names: Vec<String> = (0..servers).map(|i| format!("s{i}")).collect();
            let servers: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
            let ring = Ring::new(&servers);
            let near =
                |&(value, _): &(u32, u16)| [value.wrapping_sub(1), value, value.wrapping_add(1)];
            let edges = (0..4096u32).map(|i| i << 20).chain([u32::MAX]);
            for hash in ring.points().iter().flat_map(near).chain(edges) {
                let at = ring.points().partition_point(|&(value, _)| value < hash);
                let (_, owner) = ring.points()[at % ring.points().len()];
                assert_eq!(ring.owner(hash), ShardIndex(owner), "{hash}");
            }
        }
    }

    #[test]
    fn a_hash_past_the_last_point_wraps() {
        let ring = Ring::new(&[("a", 1), ("b", 1)]);
        let (first, last) = (ring.points()[0], ring.points()[ring.points().len() - 1]);
        assert_eq!(ring.owner(last.0), ShardIndex(last.1));
        assert_eq!(ring.owner(last.0 + 1), ShardIndex(first.1));
        assert_eq!(ring.owner(first.0), ShardIndex(first.1));
        assert_eq!(ring.owner(0), ShardIndex(first.1));
    }
}
