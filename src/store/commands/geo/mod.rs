//! Commands on places: sorted sets whose scores are geohashes.
//!
//! ```text
//! mod     single places: GEOADD, GEODIST, GEOHASH, GEOPOS
//! search  what is near: GEOSEARCH, GEORADIUS and their kin
//! ```

mod search;

use crate::store::format::geohash::Place;
use crate::store::kinds::zset;

use super::args::Args;
use super::context::{Context, Outcome};
use super::failure::Failure;
use super::reply::Reply;
use super::table::{Command, Keys, Run};
use super::zsets::{self, Adding};

/// The family.
pub const COMMANDS: &[Command] = &[
    geo("geoadd", -5, "write denyoom", Keys::FIRST, geoadd),
    geo("geodist", -4, "readonly", Keys::FIRST, geodist),
    geo("geohash", -2, "readonly", Keys::FIRST, geohash),
    geo("geopos", -2, "readonly", Keys::FIRST, geopos),
    geo("geosearch", -7, "readonly", Keys::FIRST, search::geosearch),
    geo(
        "geosearchstore",
        -8,
        "write denyoom",
        Keys::FIRST_TWO,
        search::geosearchstore,
    ),
    geo(
        "georadius",
        -6,
        "write denyoom movablekeys",
        Keys::FirstAndStore,
        search::georadius,
    ),
    geo(
        "georadius_ro",
        -6,
        "readonly",
        Keys::FIRST,
        search::georadius_ro,
    ),
    geo(
        "georadiusbymember",
        -5,
        "write denyoom movablekeys",
        Keys::FirstAndStore,
        search::georadiusbymember,
    ),
    geo(
        "georadiusbymember_ro",
        -5,
        "readonly",
        Keys::FIRST,
        search::georadiusbymember_ro,
    ),
];

const fn geo(
    name: &'static str,
    arity: i8,
    flags: &'static str,
    keys: Keys,
    run: fn(&mut Context<'_>, Args<'_>) -> Outcome,
) -> Command {
    let (categories, run) = ("geo", Run::Data(run));
    Command {
        name,
        arity,
        flags,
        keys,
        categories,
        run,
    }
}

/// Longitude and latitude, from an argument on.
fn place(args: Args<'_>, number: usize) -> Result<Place, Failure> {
    let place = Place {
        longitude: args.float(number)?,
        latitude: args.float(number + 1)?,
    };
    match place.is_valid() {
        true => Ok(place),
        false => Err(Failure::text(format!(
            "ERR invalid longitude,latitude pair {:.6},{:.6}",
            place.longitude, place.latitude
        ))),
    }
}

/// Metres of a unit.
fn unit_m(args: Args<'_>, number: usize) -> Result<f64, Failure> {
    match () {
        () if args.is(number, "m") => Ok(1.0),
        () if args.is(number, "km") => Ok(1000.0),
        () if args.is(number, "ft") => Ok(0.3048),
        () if args.is(number, "mi") => Ok(1609.34),
        () => Err(Failure::words(
            "ERR unsupported unit provided. please use M, KM, FT, MI",
        )),
    }
}

fn tell_distance(reply: &mut Reply, distance: f64) {
    reply.bulk(format!("{distance:.4}").as_bytes());
}

fn tell_place(reply: &mut Reply, place: Place) {
    reply.array(2);
    for degrees in [place.longitude, place.latitude] {
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        let text = if text == "-0" { "0" } else { text };
        match reply.is_resp3() {
            true => reply
                .raw()
                .extend_from_slice(format!(",{text}\r\n").as_bytes()),
            false => reply.bulk(text.as_bytes()),
        }
    }
}

fn geoadd(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let mut adding = Adding::default();
    let mut first = 2;
    while first < args.len() {
        match () {
            () if args.is(first, "NX") => adding.only_new = true,
            () if args.is(first, "XX") => adding.only_old = true,
            () if args.is(first, "CH") => adding.counts_changed = true,
            () => break,
        }
        first += 1;
    }
    let words = args.len() - first;
    if !words.is_multiple_of(3) || (adding.only_new && adding.only_old) {
        return Err(Failure::SYNTAX);
    }
    let elements = (first..args.len())
        .step_by(3)
        .map(|at| Ok((place(args, at)?.score(), args.at(at + 2))))
        .collect::<Result<Vec<_>, Failure>>()?;
    if elements.is_empty() {
        return Err(Failure::SYNTAX);
    }
    zsets::add_all(context, args.at(1), adding, &elements)
}

fn geodist(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let unit_m = match args.len() {
        ..=4 => 1.0,
        5 => unit_m(args, 4)?,
        _ => return Err(Failure::SYNTAX),
    };
    let mut places = Vec::with_capacity(2);
    if let Some(held) = zsets::read(context, args.at(1))? {
        for member in args.from(2).take(2) {
            let score = zset::score(context.keyspace.rows_read(), &held.zset, member)?;
            places.extend(score.map(Place::of_score));
        }
    }
    match places[..] {
        [one, other] => tell_distance(context.reply, one.distance_m(other) / unit_m),
        _ => context.reply.null(),
    }
    Ok(())
}

fn geohash(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    each_place(context, args, |reply, place| match place {
        Some(place) => reply.bulk(&place.text()),
        None => reply.null(),
    })
}

fn geopos(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    each_place(context, args, |reply, place| match place {
        Some(place) => tell_place(reply, place),
        None => reply.null_array(),
    })
}

fn each_place(
    context: &mut Context<'_>,
    args: Args<'_>,
    tell: impl Fn(&mut Reply, Option<Place>),
) -> Outcome {
    let held = zsets::read(context, args.at(1))?;
    context.reply.array(args.len() - 2);
    for member in args.from(2) {
        let score = match &held {
            Some(held) => zset::score(context.keyspace.rows_read(), &held.zset, member)?,
            None => None,
        };
        tell(context.reply, score.map(Place::of_score));
    }
    Ok(())
}
