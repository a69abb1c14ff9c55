//! Lua: what scripts return, what they call, how they fail.

use super::computed;
use super::curated::CURATED;
use super::{Group, Recipe};
use crate::dice::Dice;
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "script",
    recipes: &[
        Recipe::new("EVAL", 30, |d| {
            let script = d.pick(SCRIPTS);
            called(d, line("EVAL").word(script))
        }),
        Recipe::new("EVAL", 40, |d| {
            let script = d.pick(CURATED);
            called(d, line("EVAL").word(script))
        }),
        Recipe::new("EVAL", 30, |d| {
            let (script, arguments) = computed::script(d);
            let made = line("EVAL").word(script).word("0");
            made.words(arguments)
        }),
        Recipe::new("EVAL_RO", 6, |d| {
            let script = d.pick(SCRIPTS);
            called(d, line("EVAL_RO").word(script))
        }),
        Recipe::new("EVALSHA", 14, |d| {
            let sha = sha(d);
            called(d, line("EVALSHA").word(sha))
        }),
        Recipe::new("EVALSHA", 10, |d| loaded(d, "EVALSHA")),
        Recipe::new("EVALSHA_RO", 3, |d| {
            let sha = sha(d);
            called(d, line("EVALSHA_RO").word(sha))
        }),
        Recipe::new("EVALSHA_RO", 5, |d| loaded(d, "EVALSHA_RO")),
        Recipe::new("SCRIPT|LOAD", 14, |d| {
            line("SCRIPT LOAD").word(d.pick(SCRIPTS))
        }),
        Recipe::new("SCRIPT|EXISTS", 6, |d| {
            let shas: Vec<_> = (0..d.between(1, 3)).map(|_| sha(d)).collect();
            line("SCRIPT EXISTS").words(shas)
        }),
        Recipe::new("SCRIPT|FLUSH", 1, |d| {
            let how = d.pick(&["", " SYNC", " ASYNC", " LATER"]);
            line(&format!("SCRIPT FLUSH{how}"))
        }),
    ],
};

const SCRIPTS: &[&str] = &[
    "return 1",
    "return 'text'",
    "return 3.99",
    "return true",
    "return false",
    "return nil",
    "return {1, 2, {3, 'four', {}}, nil, 5}",
    "return {ok='FINE'}",
    "return {err='ERR my own'}",
    "return {err='MYCODE my own'}",
    "return redis.error_reply('MYCODE my own')",
    "return redis.status_reply('FINE')",
    "return {double=3.5}",
    "return {KEYS[1], KEYS[2], ARGV[1], ARGV[2]}",
    "return #KEYS",
    "return redis.call('SET', KEYS[1], ARGV[1])",
    "return redis.call('GET', KEYS[1])",
    "return redis.pcall('GET', KEYS[1])",
    "return redis.call('INCRBY', KEYS[1], ARGV[1])",
    "return redis.pcall('INCRBY', KEYS[1], ARGV[1])",
    "return redis.call('LRANGE', KEYS[1], 0, -1)",
    "return redis.call('RPUSH', KEYS[1], unpack(ARGV))",
    "return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])",
    "return redis.call('ZADD', KEYS[1], 1.5, ARGV[1])",
    "return redis.call('ZSCORE', KEYS[1], ARGV[1])",
    "return redis.call('TYPE', KEYS[1])",
    "return redis.call('DEL', unpack(KEYS))",
    "return redis.call('EXISTS', KEYS[1]) + 1",
    "redis.call('SET', KEYS[1], 'first') return redis.call('LPUSH', KEYS[1], 'x')",
    "local r = redis.pcall('LPUSH', KEYS[1], 'x') return r.err or r",
    "return redis.call('NOSUCH')",
    "return redis.call('GET')",
    "return redis.call()",
    "return redis.call('SELECT', 1)",
    "redis.call('SELECT', 1) return redis.call('SET', KEYS[1], 'there')",
    "return redis.sha1hex(ARGV[1])",
    "return tostring(tonumber(ARGV[1]))",
    "return cjson.encode({1, 2, 'x'})",
    "return cjson.decode('[1, 2.5, \"x\", null, true]')",
    "return {bit.band(12, 10), bit.bor(12, 10), bit.bxor(12, 10), bit.lshift(1, 5)}",
    "return struct.pack('>I2', 258)",
    "return {cmsgpack.unpack(cmsgpack.pack({1, 'two', 3}))}",
    "return string.format('%d %s %5.2f', 7, 'x', 2.5)",
    "local t = {} for i = 1, 5 do t[i] = i * i end return t",
    "for i, k in ipairs(KEYS) do redis.call('INCR', k) end return #KEYS",
    "redis.setresp(3) return redis.call('ZSCORE', KEYS[1], ARGV[1])",
    "return #redis.call('SMEMBERS', KEYS[1])",
    "error('my failure')",
    "error({err='ERR my table'})",
    "return nosuchvariable",
    "newglobal = 1",
    "return {",
    "local x = nil; return x.field",
    "return redis.REDIS_VERSION_NUM",
    "#!lua\nreturn redis.call('SET', KEYS[1], 'x')",
    "#!lua flags=no-writes\nreturn redis.call('SET', KEYS[1], 'x')",
    "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])",
    "#!lua flags=nosuch\nreturn 1",
    "#!nolua\nreturn 1",
    "",
];

fn loaded(d: &mut Dice, name: &str) -> Line {
    let script = d.pick(SCRIPTS);
    let sha = sha1_smol::Sha1::from(script).digest().to_string();
    let call = called(d, line(name).word(sha));
    line("SCRIPT LOAD").word(script).then(call)
}

fn sha(d: &mut Dice) -> String {
    match d.between(0, 12) {
        0 => "0".repeat(40),
        1 => "abc".into(),
        2 => sha1_smol::Sha1::from(d.pick(SCRIPTS))
            .digest()
            .to_string()
            .to_uppercase(),
        _ => sha1_smol::Sha1::from(d.pick(SCRIPTS)).digest().to_string(),
    }
}

/// With keys and arguments, and rarely a wrong number of keys.
pub fn called(d: &mut Dice, made: Line) -> Line {
    let keys: Vec<_> = (0..d.between(0, 3))
        .map(|_| super::generic::any_key(d))
        .collect();
    let words: Vec<_> = (0..d.between(0, 3)).map(|_| d.value()).collect();
    let count = match d.between(0, 30) {
        0 => d.pick(&["-1", "99", "abc", ""]).to_owned(),
        _ => keys.len().to_string(),
    };
    made.word(count).words(keys).words(words)
}
