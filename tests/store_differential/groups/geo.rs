//! Places. Coordinates are of a wide range, so that no two are equally far away.

use super::{Group, Recipe};
use crate::dice::Dice;
use crate::dice::Kind::{Geo, Zset};
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "geo",
    recipes: &[
        Recipe::new("GEOADD", 30, |d| {
            let flags = ["NX", "XX", "CH"].map(|flag| vec![flag.into()]).to_vec();
            let flags = d.some_of(8, flags);
            let mut made = line("GEOADD").word(d.key(Geo)).words(flags);
            for _ in 0..d.between(1, 5) {
                made = made.words(place(d)).word(d.member());
            }
            made
        }),
        Recipe::new("GEODIST", 10, |d| {
            let made = line("GEODIST")
                .word(d.key(Geo))
                .word(d.member())
                .word(d.member());
            if d.one_in(2) {
                made.word(unit(d))
            } else {
                made
            }
        }),
        Recipe::new("GEOHASH", 6, |d| {
            let members: Vec<_> = (0..d.between(0, 4)).map(|_| d.member()).collect();
            line("GEOHASH").word(d.key(Geo)).words(members)
        }),
        Recipe::new("GEOPOS", 6, |d| {
            let members: Vec<_> = (0..d.between(0, 4)).map(|_| d.member()).collect();
            line("GEOPOS").word(d.key(Geo)).words(members)
        }),
        Recipe::new("GEOSEARCH", 14, |d| {
            let made = line("GEOSEARCH").word(d.key(Geo));
            let made = searched(d, made);
            let options = shown(d, true);
            made.words(options)
        }),
        Recipe::new("GEOSEARCHSTORE", 8, |d| {
            let to = if d.one_in(5) { d.key(Zset) } else { d.key(Geo) };
            let made = line("GEOSEARCHSTORE").word(to).word(d.key(Geo));
            let made = searched(d, made);
            let options = shown(d, false);
            let made = made.words(options);
            if d.one_in(3) {
                made.word("STOREDIST")
            } else {
                made
            }
        }),
        Recipe::new("GEORADIUS", 6, |d| {
            let made = line("GEORADIUS").word(d.key(Geo)).words(place(d));
            let made = made.word(radius(d)).word(unit(d));
            radius_options(d, made, true)
        }),
        Recipe::new("GEORADIUS_RO", 4, |d| {
            let made = line("GEORADIUS_RO").word(d.key(Geo)).words(place(d));
            let made = made.word(radius(d)).word(unit(d));
            radius_options(d, made, false)
        }),
        Recipe::new("GEORADIUSBYMEMBER", 6, |d| {
            let made = line("GEORADIUSBYMEMBER").word(d.key(Geo)).word(d.member());
            let made = made.word(radius(d)).word(unit(d));
            radius_options(d, made, true)
        }),
        Recipe::new("GEORADIUSBYMEMBER_RO", 4, |d| {
            let made = line("GEORADIUSBYMEMBER_RO")
                .word(d.key(Geo))
                .word(d.member());
            let made = made.word(radius(d)).word(unit(d));
            radius_options(d, made, false)
        }),
    ],
};

fn place(d: &mut Dice) -> [Vec<u8>; 2] {
    if d.one_in(20) {
        let odd = [
            "181",
            "-181",
            "86",
            "abc",
            "",
            "nan",
            "180",
            "-85.05112878",
            "inf",
        ];
        return [d.pick(&odd).into(), d.pick(&odd).into()];
    }
    let (wide, high) = if d.one_in(4) {
        (180.0, 85.0)
    } else {
        (3.0, 3.0)
    };
    let mut one = |most: f64| format!("{:.6}", (d.rng().f64() * 2.0 - 1.0) * most).into_bytes();
    [one(wide), one(high)]
}

fn unit(d: &mut Dice) -> &'static str {
    if d.one_in(25) {
        return d.pick(&["parsec", "", "KM"]);
    }
    d.pick(&["m", "km", "mi", "ft", "km"])
}

fn radius(d: &mut Dice) -> Vec<u8> {
    if d.one_in(15) {
        return d.pick(&["-1", "0", "abc", "", "nan", "1e300"]).into();
    }
    d.between(1, 700).to_string().into()
}

/// FROM... and BY..., sometimes one too few.
fn searched(d: &mut Dice, made: Line) -> Line {
    let made = match d.between(0, 9) {
        0..4 => made.word("FROMMEMBER").word(d.member()),
        9 => made,
        _ => made.word("FROMLONLAT").words(place(d)),
    };
    match d.between(0, 9) {
        0..5 => made.word("BYRADIUS").word(radius(d)).word(unit(d)),
        9 => made,
        _ => made
            .word("BYBOX")
            .word(radius(d))
            .word(radius(d))
            .word(unit(d)),
    }
}

fn shown(d: &mut Dice, with: bool) -> Vec<Vec<u8>> {
    // What is stored of only some is another thing on each server: all are, with ANY.
    let count = match !with && d.one_in(3) {
        true => ["COUNT", "100000", "ANY"].map(Vec::from).to_vec(),
        false => vec![b"COUNT".to_vec(), d.count()],
    };
    let mut options = vec![vec![b"ASC".to_vec()], vec![b"DESC".to_vec()], count];
    if with || d.one_in(10) {
        options.extend(["WITHCOORD", "WITHDIST", "WITHHASH"].map(|word| vec![word.into()]));
    }
    if with && d.one_in(4) {
        options.push(vec![b"COUNT".to_vec(), b"2".to_vec(), b"ANY".to_vec()]);
    }
    d.some_of(3, options)
}

fn radius_options(d: &mut Dice, made: Line, may_store: bool) -> Line {
    if d.one_in(4) || (!may_store && d.one_in(10)) {
        let options = shown(d, false);
        let how = d.pick(&["STORE", "STOREDIST"]);
        return made.words(options).word(how).word(d.key(Geo));
    }
    let options = shown(d, true);
    made.words(options)
}
