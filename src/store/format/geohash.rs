//! Places on earth as 52 bits, bit for bit as Redis has them.
//!
//! ```text
//! bit    51 50 49 48 ..  1  0
//!        lo la lo la .. lo la      26 steps: each halves the range of both
//! ```
//! Places of one cell of fewer steps are one range of numbers, so a search looks at the
//! cell of its centre and at the eight around it, with as many steps as the area allows.

/// Steps of a place.
pub const STEPS: u32 = 26;
/// Bits of a place.
const BITS: u32 = 2 * STEPS;
const LONGITUDE_MAX: f64 = 180.0;
/// What the Mercator projection makes a square.
const LATITUDE_MAX: f64 = 85.051_128_78;
/// Latitudes of the geohashes that others use.
const LATITUDE_MAX_COMMON: f64 = 90.0;
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;
const MERCATOR_MAX_M: f64 = 20_037_726.37;
const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
const LATITUDE_BITS: u64 = 0x5555_5555_5555_5555;
const LONGITUDE_BITS: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// In degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// East of Greenwich.
    pub longitude: f64,
    /// North of the equator.
    pub latitude: f64,
}

/// A cell: the place's bits of some steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    bits: u64,
    steps: u32,
}

/// The edges of a cell.
#[derive(Clone, Copy, Debug)]
struct Edges {
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

/// What is searched around a place, in metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// All within a distance.
    Circle {
        /// The distance.
        radius_m: f64,
    },
    /// All within a box of this size.
    Box {
        /// From west to east.
        width_m: f64,
        /// From south to north.
        height_m: f64,
    },
}

impl Place {
    /// Whether there is such a place here: the poles are beyond it.
    pub fn is_valid(self) -> bool {
        self.longitude.abs() <= LONGITUDE_MAX && self.latitude.abs() <= LATITUDE_MAX
    }

    fn cell(self, steps: u32, latitude_max: f64) -> Cell {
        let part = |value: f64, max: f64| {
            let offset = (value - -max) / (max - -max);
            (offset * (1_u64 << steps) as f64) as u32
        };
        let latitude = part(self.latitude, latitude_max);
        let longitude = part(self.longitude, LONGITUDE_MAX);
        Cell {
            bits: spread(latitude) | (spread(longitude) << 1),
            steps,
        }
    }

    /// The score of a valid place.
    pub fn score(self) -> f64 {
        self.cell(STEPS, LATITUDE_MAX).bits as f64
    }

    /// The place of a score, the middle of its cell.
    pub fn of_score(score: f64) -> Place {
        let edges = Cell {
            bits: bits_of(score),
            steps: STEPS,
        }
        .edges();
        let middle = |low: f64, high: f64, max: f64| f64::midpoint(low, high).clamp(-max, max);
        Place {
            longitude: middle(edges.west, edges.east, LONGITUDE_MAX),
            latitude: middle(edges.south, edges.north, LATITUDE_MAX),
        }
    }

    /// The geohash that others use: 11 letters, the last of them always `0`.
    pub fn text(self) -> [u8; 11] {
        let bits = self.cell(STEPS, LATITUDE_MAX_COMMON).bits;
        let mut text = [b'0'; 11];
        for (letter, shift) in text.iter_mut().zip((2..BITS).rev().step_by(5)) {
            let index = (bits >> (shift - 4)) & 0x1f;
            *letter = ALPHABET.get(index as usize).copied().unwrap_or(b'0');
        }
        text
    }

    /// Metres on a great circle (haversine).
    pub fn distance_m(self, other: Place) -> f64 {
        let (from, to) = (radians(self.latitude), radians(other.latitude));
        let u = ((to - from) / 2.0).sin();
        let v = ((radians(other.longitude) - radians(self.longitude)) / 2.0).sin();
        let a = u * u + from.cos() * to.cos() * v * v;
        2.0 * EARTH_RADIUS_M * a.sqrt().asin()
    }
}

fn radians(degrees: f64) -> f64 {
    degrees * (std::f64::consts::PI / 180.0)
}

fn degrees(radians: f64) -> f64 {
    radians / (std::f64::consts::PI / 180.0)
}

/// As C casts a double to 64 bits without a sign on x86: scores need not be places.
fn bits_of(score: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    let signed = |value: f64| match (-HALF..HALF).contains(&value) {
        true => value as i64 as u64,
        false => 1 << 63,
    };
    match score >= HALF {
        true => signed(score - HALF) ^ (1 << 63),
        false => signed(score),
    }
}

/// Puts a zero before each bit.
fn spread(bits: u32) -> u64 {
    let mut bits = u64::from(bits);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff_u64),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, LATITUDE_BITS),
    ] {
        bits = (bits | (bits << shift)) & mask;
    }
    bits
}

/// Takes each second bit.
fn gathered(bits: u64) -> u32 {
    let mut bits = bits & LATITUDE_BITS;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333_u64),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        bits = (bits | (bits >> shift)) & mask;
    }
    bits as u32
}

impl Cell {
    fn edges(self) -> Edges {
        let edge = |part: u32, max: f64| {
            -max + (f64::from(part) * 1.0 / (1_u64 << self.steps) as f64) * (max - -max)
        };
        let (latitude, longitude) = (gathered(self.bits), gathered(self.bits >> 1));
        Edges {
            west: edge(longitude, LONGITUDE_MAX),
            east: edge(longitude.wrapping_add(1), LONGITUDE_MAX),
            south: edge(latitude, LATITUDE_MAX),
            north: edge(latitude.wrapping_add(1), LATITUDE_MAX),
        }
    }

    /// The cell that is so far to the east and to the north; at the edge of the world it
    /// is at the other one.
    fn moved(self, east: i8, north: i8) -> Cell {
        let shift = 64 - self.steps * 2;
        let along = |own: u64, others: u64, by: i8| {
            let others = others >> shift;
            let moved = match by {
                0 => return self.bits & own,
                1.. => (self.bits & own).wrapping_add(others.wrapping_add(1)),
                _ => ((self.bits & own) | others).wrapping_sub(others.wrapping_add(1)),
            };
            moved & (own >> shift)
        };
        let longitude = along(LONGITUDE_BITS, LATITUDE_BITS, east);
        let latitude = along(LATITUDE_BITS, LONGITUDE_BITS, north);
        Cell {
            bits: longitude | latitude,
            steps: self.steps,
        }
    }

    /// Scores of its places: from one up to another, which is not among them.
    pub fn scores(self) -> (f64, f64) {
        let aligned = |bits: u64| (bits << (BITS - 2 * self.steps)) as f64;
        (aligned(self.bits), aligned(self.bits + 1))
    }
}

/// Cells around one, in Redis' order of searching: steps to the east and to the north.
const AROUND: [(i8, i8); 8] = [
    (0, 1),
    (0, -1),
    (1, 0),
    (-1, 0),
    (1, 1),
    (-1, 1),
    (1, -1),
    (-1, -1),
];

impl Shape {
    /// How far a place is from the centre, if it is within.
    pub fn distance_m(self, centre: Place, place: Place) -> Option<f64> {
        match self {
            Shape::Circle { radius_m } => {
                let distance_m = centre.distance_m(place);
                (distance_m <= radius_m).then_some(distance_m)
            }
            Shape::Box { width_m, height_m } => {
                let beside = Place {
                    longitude: centre.longitude,
                    ..place
                };
                let below = Place {
                    latitude: centre.latitude,
                    ..place
                };
                let is_within = place.distance_m(beside) <= width_m / 2.0
                    && place.distance_m(below) <= height_m / 2.0;
                is_within.then(|| centre.distance_m(place))
            }
        }
    }

    /// Cells that have all places within, in the order in which they are searched.
    pub fn cells(self, centre: Place) -> Vec<Cell> {
        let bounds = self.bounds(centre);
        let mut steps = self.steps(centre);
        let mut cell = centre.cell(steps, LATITUDE_MAX);
        let is_too_small = cell.moved(0, 1).edges().north < bounds.north
            || cell.moved(0, -1).edges().south > bounds.south
            || cell.moved(1, 0).edges().east < bounds.east
            || cell.moved(-1, 0).edges().west > bounds.west;
        if steps > 1 && is_too_small {
            steps -= 1;
            cell = centre.cell(steps, LATITUDE_MAX);
        }
        let edges = cell.edges();
        let is_needless = |(east, north): (i8, i8)| {
            let is_beyond = match east {
                1 => edges.east > bounds.east,
                -1 => edges.west < bounds.west,
                _ => false,
            };
            let is_above = match north {
                1 => edges.north > bounds.north,
                -1 => edges.south < bounds.south,
                _ => false,
            };
            steps >= 2 && (is_beyond || is_above)
        };
        let mut cells = vec![cell];
        for (number, (east, north)) in AROUND.into_iter().enumerate() {
            let next = cell.moved(east, north);
            // Of a huge area neighbours are the same; only the one before is compared,
            // and never with the centre.
            let is_same = number > 0 && cells.len() > 1 && cells.last() == Some(&next);
            if !is_needless((east, north)) && !is_same {
                cells.push(next);
            }
        }
        cells
    }

    fn bounds(self, centre: Place) -> Edges {
        let (width_m, height_m) = match self {
            Shape::Circle { radius_m } => (radius_m, radius_m),
            Shape::Box { width_m, height_m } => (width_m / 2.0, height_m / 2.0),
        };
        let Place {
            longitude,
            latitude,
        } = centre;
        let up = degrees(height_m / EARTH_RADIUS_M);
        let side = |latitude: f64| degrees(width_m / EARTH_RADIUS_M / radians(latitude).cos());
        // The wider side is the one nearer to a pole.
        let aside = match latitude < 0.0 {
            true => side(latitude - up),
            false => side(latitude + up),
        };
        Edges {
            west: longitude - aside,
            east: longitude + aside,
            south: latitude - up,
            north: latitude + up,
        }
    }

    fn steps(self, centre: Place) -> u32 {
        let mut reach_m = match self {
            Shape::Circle { radius_m } => radius_m,
            Shape::Box { width_m, height_m } => {
                let (width_m, height_m) = (width_m / 2.0, height_m / 2.0);
                (width_m * width_m + height_m * height_m).sqrt()
            }
        };
        if reach_m == 0.0 {
            return STEPS;
        }
        let mut steps = 1_u32;
        while reach_m < MERCATOR_MAX_M {
            reach_m *= 2.0;
            steps += 1;
        }
        // Cells are narrower towards the poles.
        let fewer = match centre.latitude.abs() {
            latitude if latitude > 80.0 => 4,
            latitude if latitude > 66.0 => 3,
            _ => 2,
        };
        steps.saturating_sub(fewer).clamp(1, STEPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PALERMO: Place = Place {
        longitude: 13.361389,
        latitude: 38.115556,
    };
    const CATANIA: Place = Place {
        longitude: 15.087269,
        latitude: 37.502669,
    };

    #[test]
    fn places_are_the_numbers_that_redis_documents() {
        assert_eq!(PALERMO.score(), 3_479_099_956_230_698.0);
        assert_eq!(CATANIA.score(), 3_479_447_370_796_909.0);
        let place = Place::of_score(PALERMO.score());
        assert_eq!(&place.text(), b"sqc8b49rny0");
        assert_eq!(&Place::of_score(CATANIA.score()).text(), b"sqdtr74hyu0");
        let distance_m = place.distance_m(Place::of_score(CATANIA.score()));
        assert_eq!(format!("{distance_m:.4}"), "166274.1516");
    }

    #[test]
    fn cells_of_a_search_have_all_that_is_within() {
        let mut dice = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let mut place = |wide: f64, high: f64| Place {
                longitude: (dice.f64() - 0.5) * wide,
                latitude: (dice.f64() - 0.5) * high,
            };
            let (centre, other) = (place(20.0, 140.0), place(2.0, 2.0));
            let other = Place {
                longitude: centre.longitude + other.longitude,
                latitude: centre.latitude + other.latitude,
            };
            let radius_m = centre.distance_m(other) * 1.01;
            let score = other.score();
            let is_found = Shape::Circle { radius_m }
                .cells(centre)
                .into_iter()
                .any(|cell| {
                    let (from, to) = cell.scores();
                    (from..to).contains(&score)
                });
            assert!(is_found, "{centre:?} {other:?}");
        }
    }

    #[test]
    fn any_score_is_some_place() {
        for score in [-1.0, -1e300, 1e300, 1e19, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(Place::of_score(score).is_valid(), "{score}");
        }
    }
}
