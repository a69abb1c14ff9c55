//! Users and their rights: rules in any order, what they are told to be, and commands
//! that are run with them. The user `default` stays as it is: who looks behind a sequence
//! is that one.

use super::{Group, Recipe};
use crate::dice::Dice;
use crate::directions::is_direction;
use crate::judge::how;
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "acl",
    recipes: &[
        Recipe::new("ACL|SETUSER", 30, |d| {
            let words = rules(d);
            line("ACL SETUSER").word(user(d)).words(words)
        }),
        Recipe::new("ACL|SETUSER", 3, |d| {
            let name = d.pick(&["with blank", "tab\t", "\u{e9}", "", "zero\0"]);
            let made = line("ACL SETUSER").word(name).word(one_rule(d));
            made.then(line("ACL DELUSER").word(name))
        }),
        Recipe::new("ACL|GETUSER", 12, |d| line("ACL GETUSER").word(user(d))),
        Recipe::new("ACL|GETUSER", 1, |_| line("ACL GETUSER default")),
        Recipe::new("ACL|LIST", 8, |_| line("ACL LIST")),
        Recipe::new("ACL|USERS", 2, |_| line("ACL USERS")),
        Recipe::new("ACL|WHOAMI", 2, |_| line("ACL WHOAMI")),
        Recipe::new("ACL|DRYRUN", 30, |d| {
            let asked = requested(d);
            let user = user(d);
            line("ACL DRYRUN").word(user).words(asked.words)
        }),
        Recipe::new("ACL|DELUSER", 3, |d| {
            line("ACL DELUSER").word(user(d)).word(user(d))
        }),
        Recipe::new("ACL|DELUSER", 1, |_| line("ACL DELUSER alice default")),
        Recipe::new("ACL|CAT", 2, |d| line("ACL CAT").word(category(d))),
        Recipe::new("ACL|CAT", 1, |_| line("ACL CAT")),
        Recipe::new("ACL|GENPASS", 2, |d| {
            let bits = d.pick(&["1", "5", "128", "4096", "4097", "0", "-1", "x"]);
            line("ACL GENPASS").word(bits)
        }),
        Recipe::new("ACL|GENPASS", 1, |_| line("ACL GENPASS")),
        Recipe::new("ACL|SAVE", 1, |_| line("ACL SAVE").then(line("ACL WHOAMI"))),
        Recipe::new("ACL|LOAD", 1, |_| line("ACL LOAD").then(line("ACL WHOAMI"))),
        Recipe::new("ACL|SETUSER", 25, as_user),
        Recipe::new("ACL|SETUSER", 8, changed_under_way),
    ],
};

/// All but `default`, which sequences begin without.
pub const USERS: &[&str] = &["alice", "bob", "carol"];

fn user(d: &mut Dice) -> &'static str {
    match d.one_in(40) {
        true => "nosuch",
        false => d.pick(USERS),
    }
}

fn category(d: &mut Dice) -> &'static str {
    d.pick(&[
        "keyspace",
        "read",
        "write",
        "set",
        "sortedset",
        "list",
        "hash",
        "string",
        "bitmap",
        "hyperloglog",
        "geo",
        "stream",
        "pubsub",
        "admin",
        "fast",
        "slow",
        "blocking",
        "dangerous",
        "connection",
        "transaction",
        "scripting",
        "DANGEROUS",
        "nosuch",
    ])
}

fn command(d: &mut Dice) -> &'static str {
    d.pick(&[
        "get",
        "set",
        "SET",
        "del",
        "incr",
        "append",
        "hset",
        "hgetall",
        "lpush",
        "blpop",
        "sadd",
        "zadd",
        "rename",
        "copy",
        "sort",
        "publish",
        "subscribe",
        "psubscribe",
        "ssubscribe",
        "multi",
        "exec",
        "discard",
        "select",
        "client",
        "client|id",
        "client|kill",
        "config",
        "config|get",
        "config|SET",
        "acl",
        "acl|whoami",
        "object",
        "object|freq",
        "xinfo|stream",
        "debug",
        "eval",
        "ping",
        "auth",
        "mget",
        "type",
        "memory|usage",
        "nosuch",
        "config|nosuch",
        "get|",
    ])
}

fn pattern(d: &mut Dice) -> &'static str {
    d.pick(&[
        "*",
        "text:*",
        "text:0",
        "hash:*",
        "list:?",
        "*:1",
        "set:[0-2]",
        "n*",
        "",
        "with blank",
        "q\"uote",
        "chan*",
        "chan:1",
    ])
}

/// One rule, right or wrong.
fn one_rule(d: &mut Dice) -> String {
    match d.between(0, 39) {
        0 | 1 => "on".into(),
        2 => "off".into(),
        3 => "nopass".into(),
        4 => "resetpass".into(),
        5 => d.pick(&[">a", ">b", ">", ">with blank"]).into(),
        6 => d.pick(&["<a", "<b", "<nosuch"]).into(),
        7 => d.pick(&[HASH, "#zz", "#"]).into(),
        8 => format!("!{}", &HASH[1..]),
        9 => "reset".into(),
        10 => "clearselectors".into(),
        11 => d
            .pick(&["sanitize-payload", "skip-sanitize-payload"])
            .into(),
        12 => d.pick(&["allkeys", "resetkeys", "RESETKEYS"]).into(),
        13 => d.pick(&["allchannels", "resetchannels"]).into(),
        14 => d
            .pick(&["allcommands", "nocommands", "+@all", "-@ALL"])
            .into(),
        15..=18 => format!("~{}", pattern(d)),
        19 | 20 => format!(
            "{}{}",
            d.pick(&["%R~", "%W~", "%RW~", "%w~", "%rr~", "%~"]),
            pattern(d)
        ),
        21 | 22 => format!("&{}", pattern(d)),
        23..=26 => format!("+@{}", category(d)),
        27..=29 => format!("-@{}", category(d)),
        30..=34 => format!("+{}", command(d)),
        35 | 36 => format!("-{}", command(d)),
        37 => d
            .pick(&[
                "+select|0",
                "+select|1",
                "+get|x",
                "+config|set|x",
                "+debug|object",
            ])
            .into(),
        38 => selector(d),
        _ => d
            .pick(&["", "nonsense", "+", "-", "+@", "(", ")", "()", "%R"])
            .into(),
    }
}

const HASH: &str = "#ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";

fn selector(d: &mut Dice) -> String {
    let rules: Vec<String> = (0..d.between(1, 3))
        .map(|_| {
            loop {
                let rule = one_rule(d);
                // A selector in a selector is put together otherwise in each place.
                if !rule.contains(['(', ')']) {
                    break rule;
                }
            }
        })
        .collect();
    format!("({})", rules.join(" "))
}

fn rules(d: &mut Dice) -> Vec<String> {
    // All that a sequence did before would stay else, wrong rules and all.
    let mut rules = match d.one_in(5) {
        true => vec!["reset".to_owned()],
        false => Vec::new(),
    };
    for _ in 0..d.between(0, 4) {
        let rule = one_rule(d);
        match rule.starts_with('(') && d.one_in(3) {
            // Its words may stand apart.
            true => rules.extend(rule.split(' ').map(str::to_owned)),
            false => rules.push(rule),
        }
    }
    rules
}

/// Groups whose commands are run with rights.
const INSIDE: &[&str] = &[
    "string", "bits", "hash", "list", "set", "zset", "generic", "sort", "geo",
];

/// A command whose reply is compared byte by byte.
fn inside(d: &mut Dice) -> Line {
    loop {
        let group = super::group(d.pick(INSIDE));
        let at = usize::try_from(d.between(0, group.recipes.len() as i64 - 1)).unwrap_or(0);
        let made = (group.recipes[at].make)(d).into_unit();
        let is_fine = |of: &Line| {
            let how = how(of);
            !how.is_alone() && !how.needs_encoding() && !is_direction(of) && !waits(of)
        };
        if made.len() == 1 && is_fine(&made[0]) {
            return made.into_iter().next().expect("one line");
        }
    }
}

fn waits(of: &Line) -> bool {
    of.name().starts_with('B') && !of.name().starts_with("BIT")
}

/// A request of whatever kind.
fn requested(d: &mut Dice) -> Line {
    match d.between(0, 9) {
        0 => line("PUBLISH").word(pattern(d)).word("m"),
        1 => line("SUBSCRIBE").word(pattern(d)).word(pattern(d)),
        2 => line("PSUBSCRIBE").word(pattern(d)),
        3 => line("SSUBSCRIBE").word(pattern(d)),
        4 => line(d.pick(&[
            "CLIENT ID",
            "CLIENT KILL x",
            "CONFIG GET x",
            "config set x y",
            "CONFIG NOSUCH",
            "SELECT 0",
            "select 1",
            "NOSUCH x",
            "AUTH x",
            "GET",
            "ACL|CAT",
            "EVAL x 1 text:0",
            "EVAL x nan text:0",
            "MIGRATE h 1 text:0 0 5",
            "XREAD STREAMS a text:0 0 0",
            "MULTI",
            "DEBUG OBJECT text:0",
            "DEBUG SLEEP 0",
        ])),
        _ => inside(d),
    }
}

/// The other client logs in, and runs commands as that user.
fn as_user(d: &mut Dice) -> Line {
    let user = d.pick(USERS);
    let mut made = line("ACL SETUSER").word(user).words(["on", "nopass"]);
    for rule in rules(d) {
        if !matches!(&*rule, "off" | "reset" | "resetpass") && !rule.starts_with(['>', '#']) {
            made = made.word(rule);
        }
    }
    made = made.then(line("AUTH").word(user).word("x").by_second());
    for _ in 0..d.between(1, 6) {
        made = made.then(inside(d).by_second());
    }
    if d.one_in(3) {
        let whoami = line("ACL WHOAMI");
        made = made.then(whoami.by_second());
    }
    if d.one_in(3) {
        let published = line("PUBLISH").word(pattern(d)).word("m");
        made = made.then(published.by_second());
    }
    for _ in 0..d.between(0, 2) {
        let script = d.pick(&[SCRIPT_CALLS, SCRIPT_ASKS]);
        let called = line("EVAL")
            .word(script)
            .word("0")
            .words(requested(d).words);
        made = made.then(called.by_second());
    }
    made.then(line("AUTH default x").by_second())
}

/// Only what was refused is told: replies may be in another order.
const SCRIPT_CALLS: &str = "local r = redis.pcall(unpack(ARGV)) \
     if type(r) == 'table' and r.err then return r.err end return 'done'";
const SCRIPT_ASKS: &str = "return redis.acl_check_cmd(unpack(ARGV))";

/// Rights change between MULTI and EXEC.
fn changed_under_way(d: &mut Dice) -> Line {
    let user = d.pick(USERS);
    let mut made = line("ACL SETUSER")
        .word(user)
        .words(["reset", "on", "nopass", "+@all", "~*", "&*"]);
    made = made.then(line("AUTH").word(user).word("x").by_second());
    made = made.then(line("MULTI").by_second());
    for _ in 0..d.between(1, 4) {
        made = made.then(inside(d).by_second());
    }
    made = made.then(line("ACL SETUSER").word(user).words(rules(d)));
    made = made.then(inside(d).by_second());
    made = made.then(line("EXEC").by_second());
    made.then(line("AUTH default x").by_second())
}
