//! What is near a place: within a distance, or within a box.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::commands::zsets::{self, Held};
use crate::store::format::geohash::{Place, Shape};
use crate::store::format::partial_sort::partial_sort;
use crate::store::kinds::zset::{self, Builder, Direction, Range, ScoreRange};
use crate::store::rows::StoreError;

use super::{place, tell_distance, tell_place, unit_m};

/// What a command's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Search,
    SearchStore,
    /// GEORADIUS; whether it may store.
    Radius(bool),
    /// GEORADIUSBYMEMBER; whether it may store.
    RadiusByMember(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Found,
    Nearest,
    Farthest,
}

/// What a command asks for.
struct Query<'a> {
    centre: Option<Place>,
    shape: Option<Shape>,
    /// Metres of the unit that distances are told in.
    unit_m: f64,
    order: Order,
    /// 0 for all.
    count: usize,
    takes_any: bool,
    tells_distance: bool,
    tells_hash: bool,
    tells_place: bool,
    /// The key, and whether distances are its scores.
    store: Option<(&'a [u8], bool)>,
}

/// A place that was found.
struct Found {
    member: Bytes,
    score: f64,
    place: Place,
    distance_m: f64,
}

fn distance_of(args: Args<'_>, number: usize, words: &'static str) -> Result<f64, Failure> {
    args.float(number).map_err(|_| Failure::words(words))
}

fn circle(args: Args<'_>, number: usize) -> Result<(Shape, f64), Failure> {
    let radius = distance_of(args, number, "ERR need numeric radius")?;
    if radius < 0.0 {
        return Err(Failure::words("ERR radius cannot be negative"));
    }
    let unit_m = unit_m(args, number + 1)?;
    let radius_m = radius * unit_m;
    Ok((Shape::Circle { radius_m }, unit_m))
}

fn rectangle(args: Args<'_>, number: usize) -> Result<(Shape, f64), Failure> {
    let width = distance_of(args, number, "ERR need numeric width")?;
    let height = distance_of(args, number + 1, "ERR need numeric height")?;
    if width < 0.0 || height < 0.0 {
        return Err(Failure::words("ERR height or width cannot be negative"));
    }
    let unit_m = unit_m(args, number + 2)?;
    let (width_m, height_m) = (width * unit_m, height * unit_m);
    Ok((Shape::Box { width_m, height_m }, unit_m))
}

fn member_place(context: &Context<'_>, held: &Held, member: &[u8]) -> Result<Place, Failure> {
    let score = zset::score(context.keyspace.rows_read(), &held.zset, member)?;
    score
        .map(Place::of_score)
        .ok_or(Failure::words("ERR could not decode requested zset member"))
}

impl<'a> Query<'a> {
    /// Reads what stands behind the key, which may not be there: then what comes of a
    /// member is not known.
    fn parse(
        context: &Context<'_>,
        args: Args<'a>,
        named: Named,
        held: Option<&Held>,
    ) -> Result<Self, Failure> {
        let mut query = Self {
            centre: None,
            shape: None,
            unit_m: 1.0,
            order: Order::Found,
            count: 0,
            takes_any: false,
            tells_distance: false,
            tells_hash: false,
            tells_place: false,
            store: None,
        };
        let first = match named {
            Named::Radius(_) => {
                query.centre = Some(place(args, 2)?);
                query.set_shape(circle(args, 4)?);
                6
            }
            Named::RadiusByMember(_) => {
                if let Some(held) = held {
                    query.centre = Some(member_place(context, held, args.at(2))?);
                    query.set_shape(circle(args, 3)?);
                }
                5
            }
            Named::Search => 2,
            Named::SearchStore => {
                query.store = Some((args.at(1), false));
                3
            }
        };
        let mut at = first;
        let (mut from_member, mut from_place) = (false, false);
        while at < args.len() {
            let behind = args.len() - at - 1;
            let may_store = matches!(named, Named::Radius(true) | Named::RadiusByMember(true));
            let searches = matches!(named, Named::Search | Named::SearchStore);
            let is_box = matches!(query.shape, Some(Shape::Box { .. }));
            let is_circle = matches!(query.shape, Some(Shape::Circle { .. }));
            at += match () {
                () if args.is(at, "WITHDIST") => {
                    query.tells_distance = true;
                    1
                }
                () if args.is(at, "WITHHASH") => {
                    query.tells_hash = true;
                    1
                }
                () if args.is(at, "WITHCOORD") => {
                    query.tells_place = true;
                    1
                }
                () if args.is(at, "ANY") => {
                    query.takes_any = true;
                    1
                }
                () if args.is(at, "ASC") => {
                    query.order = Order::Nearest;
                    1
                }
                () if args.is(at, "DESC") => {
                    query.order = Order::Farthest;
                    1
                }
                () if args.is(at, "COUNT") && behind >= 1 => {
                    query.count = match usize::try_from(args.integer(at + 1)?) {
                        Ok(count @ 1..) => count,
                        _ => return Err(Failure::words("ERR COUNT must be > 0")),
                    };
                    2
                }
                () if may_store && args.is(at, "STORE") && behind >= 1 => {
                    query.store = Some((args.at(at + 1), false));
                    2
                }
                () if may_store && args.is(at, "STOREDIST") && behind >= 1 => {
                    query.store = Some((args.at(at + 1), true));
                    2
                }
                () if searches && args.is(at, "FROMMEMBER") && behind >= 1 && !from_place => {
                    from_member = true;
                    if let Some(held) = held {
                        query.centre = Some(member_place(context, held, args.at(at + 1))?);
                    }
                    2
                }
                () if searches && args.is(at, "FROMLONLAT") && behind >= 2 && !from_member => {
                    from_place = true;
                    query.centre = Some(place(args, at + 1)?);
                    3
                }
                () if searches && args.is(at, "BYRADIUS") && behind >= 2 && !is_box => {
                    query.set_shape(circle(args, at + 1)?);
                    3
                }
                () if searches && args.is(at, "BYBOX") && behind >= 3 && !is_circle => {
                    query.set_shape(rectangle(args, at + 1)?);
                    4
                }
                () if named == Named::SearchStore && args.is(at, "STOREDIST") => {
                    query.store = Some((args.at(1), true));
                    1
                }
                () => return Err(Failure::SYNTAX),
            };
        }
        query.check(args, named, from_member || from_place)?;
        Ok(query)
    }

    fn set_shape(&mut self, (shape, unit_m): (Shape, f64)) {
        (self.shape, self.unit_m) = (Some(shape), unit_m);
    }

    fn tells_more(&self) -> usize {
        let more = [self.tells_distance, self.tells_hash, self.tells_place];
        more.into_iter().filter(|is_told| *is_told).count()
    }

    fn check(&self, args: Args<'_>, named: Named, has_centre: bool) -> Result<(), Failure> {
        let searches = matches!(named, Named::Search | Named::SearchStore);
        let name = String::from_utf8_lossy(args.at(0));
        if self.store.is_some() && self.tells_more() > 0 {
            let what = match named {
                Named::SearchStore => "GEOSEARCHSTORE",
                _ => "STORE option in GEORADIUS",
            };
            return Err(Failure::text(format!(
                "ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        if searches && !has_centre {
            return Err(Failure::text(format!(
                "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {name}"
            )));
        }
        if searches && self.shape.is_none() {
            return Err(Failure::text(format!(
                "ERR exactly one of BYRADIUS and BYBOX can be specified for {name}"
            )));
        }
        if self.takes_any && self.count == 0 {
            return Err(Failure::words(
                "ERR the ANY argument requires COUNT argument",
            ));
        }
        Ok(())
    }

    fn find(&self, context: &Context<'_>, held: &Held) -> Result<Vec<Found>, StoreError> {
        let (Some(centre), Some(shape)) = (self.centre, self.shape) else {
            return Ok(Vec::new());
        };
        let enough = match self.takes_any {
            true => self.count,
            false => usize::MAX,
        };
        let mut found = Vec::new();
        'cells: for cell in shape.cells(centre) {
            let (min, max) = cell.scores();
            let range = Range::Score(ScoreRange {
                min,
                excludes_min: false,
                max,
                excludes_max: true,
            });
            let entries = zset::walk(context.keyspace, &held.zset, &range, Direction::Forward)?;
            for entry in entries {
                if found.len() >= enough {
                    break 'cells;
                }
                let zset::Entry { member, score } = entry?;
                let place = Place::of_score(score);
                if let Some(distance_m) = shape.distance_m(centre, place) {
                    found.push(Found {
                        member,
                        score,
                        place,
                        distance_m,
                    });
                }
            }
        }
        let order = match self.order {
            // The nearest ones are those to be counted.
            Order::Found if self.count > 0 && !self.takes_any => Order::Nearest,
            order => order,
        };
        let by_distance = |one: &Found, other: &Found| match order {
            Order::Found => Ordering::Equal,
            Order::Nearest => one.distance_m.total_cmp(&other.distance_m),
            Order::Farthest => other.distance_m.total_cmp(&one.distance_m),
        };
        let is_part = self.count > 0 && self.count < found.len();
        match order {
            Order::Found => {}
            _ if is_part => partial_sort(&mut found, 0..self.count, &by_distance),
            _ => found.sort_by(by_distance),
        }
        if self.count > 0 {
            found.truncate(self.count);
        }
        Ok(found)
    }
}

fn search(context: &mut Context<'_>, args: Args<'_>, named: Named) -> Outcome {
    let source = args.at(if named == Named::SearchStore { 2 } else { 1 });
    let held = zsets::read(context, source)?;
    let query = Query::parse(context, args, named, held.as_ref())?;
    let found = match &held {
        Some(held) => query.find(context, held)?,
        None => Vec::new(),
    };
    let Some((target, by_distance)) = query.store else {
        tell(context, &query, &found);
        return Ok(());
    };
    context.lookup(target)?;
    let mut made = Builder::default();
    for one in &found {
        let score = match by_distance {
            true => one.distance_m / query.unit_m,
            false => one.score,
        };
        made.push_new(context.keyspace, &one.member, score);
    }
    let event = match named {
        Named::SearchStore => "geosearchstore",
        _ => "georadiusstore",
    };
    zsets::store(context, target, made, event)
}

fn tell(context: &mut Context<'_>, query: &Query<'_>, found: &[Found]) {
    let reply = &mut *context.reply;
    let more = query.tells_more();
    reply.array(found.len());
    for one in found {
        if more > 0 {
            reply.array(more + 1);
        }
        reply.bulk(&one.member);
        if query.tells_distance {
            tell_distance(reply, one.distance_m / query.unit_m);
        }
        if query.tells_hash {
            reply.integer(one.score as i64);
        }
        if query.tells_place {
            tell_place(reply, one.place);
        }
    }
}

pub(super) fn geosearch(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    search(context, args, Named::Search)
}

pub(super) fn geosearchstore(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    search(context, args, Named::SearchStore)
}

pub(super) fn georadius(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    search(context, args, Named::Radius(true))
}

pub(super) fn georadius_ro(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    search(context, args, Named::Radius(false))
}

pub(super) fn georadiusbymember(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    search(context, args, Named::RadiusByMember(true))
}

pub(super) fn georadiusbymember_ro(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    search(context, args, Named::RadiusByMember(false))
}
