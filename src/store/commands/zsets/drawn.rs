//! At random, and scanned.

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::drawing::Count;
use crate::store::commands::failure::Failure;
use crate::store::commands::scanning::{self, ScanOptions};
use crate::store::format::numbers::float_text;
use crate::store::kinds::Drawn;
use crate::store::kinds::zset::{self, Entry};

use super::{element, elements_head, read};

pub(super) fn zrandmember(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    if args.len() == 2 {
        let found = match read(context, args.at(1))? {
            None => None,
            Some(held) => zset::draw(context.keyspace, &held.zset, 1, Drawn::Repeated)?.pop(),
        };
        let member = found.as_ref().map(|entry| &*entry.member);
        context.reply.bulk_or_null(member);
        return Ok(());
    }
    let count = Count::parse(args, 2)?;
    let has_scores = match args.len() {
        3 => false,
        4 if args.is(3, "WITHSCORES") => true,
        _ => return Err(Failure::SYNTAX),
    };
    if has_scores && count.wanted > i64::MAX as u64 / 2 {
        return Err(Failure::words("ERR value is out of range"));
    }
    let Some(held) = read(context, args.at(1))? else {
        context.reply.array(0);
        return Ok(());
    };
    let drawn = count.of(held.len())?;
    elements_head(context.reply, drawn, has_scores);
    for batch in count.batches(drawn) {
        for entry in zset::draw(context.keyspace, &held.zset, batch, count.drawn)? {
            element(context.reply, &entry, has_scores);
        }
    }
    Ok(())
}

pub(super) fn zscan(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let cursor = scanning::cursor(args.at(2))?;
    let Some(held) = read(context, args.at(1))? else {
        scanning::reply_part(context.reply, 0, 0);
        return Ok(());
    };
    let options = ScanOptions::parse(args, 3)?;
    let part = zset::scan(
        context.keyspace.rows_read(),
        &held.zset,
        cursor,
        options.count,
    )?;
    let wanted = |entry: &&Entry| options.wants(&entry.member);
    let count = part.entries.iter().filter(wanted).count();
    scanning::reply_part(context.reply, part.next, 2 * count);
    for entry in part.entries.iter().filter(wanted) {
        context.reply.bulk(&entry.member);
        // A bulk string in either protocol.
        let text = scanned_score(entry.score, held.zset.is_compact);
        context.reply.bulk(text.as_bytes());
    }
    Ok(())
}

/// A listpack has its whole numbers as integers, up to half of their 64 bits.
fn scanned_score(score: f64, is_compact: bool) -> String {
    const MAX: f64 = (i64::MAX / 2) as f64;
    match is_compact && score.trunc() == score && score.abs() <= MAX {
        true => (score as i64).to_string(),
        false => float_text(score),
    }
}
