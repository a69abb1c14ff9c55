//! Libraries of functions: how they are loaded, replaced, carried and deleted, and what
//! their functions say. Each registers one function, so that a list has one order.

use keyferry::rdb::{crc64, write_string};

use super::script::called;
use super::{Group, Recipe};
use crate::dice::Dice;
use crate::line::line;

pub const GROUP: Group = Group {
    name: "functions",
    recipes: &[
        Recipe::new("FUNCTION|LOAD", 30, |d| {
            let made = line("FUNCTION LOAD");
            let made = match d.one_in(2) {
                true => made.word("REPLACE"),
                false => made,
            };
            made.word(library(d))
        }),
        Recipe::new("FUNCTION|LOAD", 10, |d| {
            line("FUNCTION LOAD").word(d.pick(WRONG))
        }),
        Recipe::new("FUNCTION|LOAD", 1, |d| {
            line("FUNCTION LOAD WHATEVER").word(library(d))
        }),
        Recipe::new("FUNCTION|DELETE", 8, |d| {
            line("FUNCTION DELETE").word(format!("lib{}", d.between(0, 4)))
        }),
        Recipe::new("FUNCTION|FLUSH", 2, |d| {
            let how = d.pick(&["", " SYNC", " ASYNC", " LATER"]);
            line(&format!("FUNCTION FLUSH{how}"))
        }),
        Recipe::new("FUNCTION|LIST", 10, |d| {
            let made = line("FUNCTION LIST");
            let made = match d.one_in(2) {
                true => made
                    .word("LIBRARYNAME")
                    .word(d.pick(&["lib*", "LIB1", "x", "[", "lib?"])),
                false => made,
            };
            match d.one_in(3) {
                true => made.word("WITHCODE"),
                false => made,
            }
        }),
        Recipe::new("FUNCTION|LIST", 1, |d| {
            line(d.pick(&["FUNCTION LIST LIBRARYNAME", "FUNCTION LIST what"]))
        }),
        Recipe::new("FUNCTION|STATS", 4, |_| line("FUNCTION STATS")),
        Recipe::new("FUNCTION|DUMP", 2, |_| line("FUNCTION DUMP")),
        Recipe::new("FUNCTION|RESTORE", 8, |d| {
            let how = d.pick(&["", "APPEND", "REPLACE", "FLUSH", "what"]);
            // Of several, which is refused first is left to a hash.
            let made = line("FUNCTION RESTORE").word(payload(d));
            match how {
                "" => made,
                how => made.word(how),
            }
        }),
        Recipe::new("FCALL", 50, |d| {
            let name = function(d);
            called(d, line("FCALL").word(name))
        }),
        Recipe::new("FCALL_RO", 12, |d| {
            let name = function(d);
            called(d, line("FCALL_RO").word(name))
        }),
    ],
};

const BODIES: &[&str] = &[
    "return {k, a}",
    "return #k",
    "return redis.call('SET', k[1], a[1])",
    "return redis.call('GET', k[1])",
    "return redis.pcall('INCR', k[1])",
    "return redis.call('INCR', k[1])",
    "return redis.call('RPUSH', k[1], unpack(a))",
    "for _, key in ipairs(k) do redis.call('DEL', key) end return redis.status_reply('GONE')",
    "error('my failure')",
    "error({err = 'MYCODE mine'})",
    "return nosuchglobal",
    "newglobal = 1",
    "return redis.register_function",
    "return {math.floor(2.7), cjson.encode({1}), bit.band(6, 3)}",
    "redis.setresp(3) return redis.call('HGETALL', k[1]) and 1",
    "count = (count or 0) + 1 return count",
    "counted = counted + 1 return counted",
    "return KEYS",
    "return redis.call('FUNCTION', 'LIST')",
    "return redis.call('PUBLISH', 'c', 'm')",
    "return tostring(redis.breakpoint)",
];

/// Its flags follow from its number, so that all kinds are there.
fn library(d: &mut Dice) -> String {
    let name = d.between(0, 4);
    // Now and then a name that another library has.
    let function = if d.one_in(8) { d.between(0, 4) } else { name };
    let body = d.pick(BODIES);
    let called = format!("function(k, a) {body} end");
    let registered = match d.between(0, 5) {
        0 => format!(
            "{{function_name = 'f{function}', callback = {called}, flags = {{'no-writes'}}}}"
        ),
        1 => format!(
            "{{function_name = 'f{function}', callback = {called}, description = 'told', \
             flags = {{'allow-oom', 'no-cluster', 'allow-stale', 'allow-cross-slot-keys'}}}}"
        ),
        2 => format!("{{FUNCTION_NAME = 'f{function}', Callback = {called}}}"),
        _ => format!("('f{function}', {called})"),
    };
    format!("#!lua name=lib{name}\nlocal counted = 0\nredis.register_function{registered}")
}

fn function(d: &mut Dice) -> String {
    match d.one_in(20) {
        true => "nosuch".into(),
        false => format!("f{}", d.between(0, 4)),
    }
}

/// As FUNCTION DUMP has it.
fn payload(d: &mut Dice) -> Vec<u8> {
    let mut payload = Vec::new();
    for _ in 0..d.between(0, 1) {
        let text = library(d);
        payload.push(245);
        write_string(&mut payload, text.as_bytes());
    }
    if d.one_in(12) {
        payload.push(0);
    }
    payload.extend_from_slice(&10_u16.to_le_bytes());
    let mut checksum = crc64(0, &payload);
    if d.one_in(12) {
        checksum ^= 1;
    }
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

const WRONG: &[&str] = &[
    "",
    "return 1",
    "#!lua",
    "#!lua\n",
    "#!lua name=x",
    "#!lua name=x\n",
    "#!lua name=x\nreturn 1",
    "#!lua name=x y\nreturn 1",
    "#!lua name=x name=y\nreturn 1",
    "#!lua name='a b'\nreturn 1",
    "#!lua name=\"\\x41\"\nredis.register_function('b-c', function() end)",
    "#!js name=x\nreturn 1",
    "#!LUA name=x\nsyntax error",
    "#!lua name=x\nerror('at load')",
    "#!lua name=x\nerror({err = 'ERR at load'})",
    "#!lua name=x\nlocal y = tostring(1)",
    "#!lua name=x\nlocal y = redis.call('PING')",
    "#!lua name=x\ny = 1",
    "#!lua name=x\nredis.log(redis.LOG_DEBUG, 'told')",
    "#!lua name=x\nredis.register_function()",
    "#!lua name=x\nredis.register_function(1)",
    "#!lua name=x\nredis.register_function('a')",
    "#!lua name=x\nredis.register_function('a', 1)",
    "#!lua name=x\nredis.register_function({}, function() end)",
    "#!lua name=x\nredis.register_function('a', function() end, 1)",
    "#!lua name=x\nredis.register_function{}",
    "#!lua name=x\nredis.register_function{function_name = 'a'}",
    "#!lua name=x\nredis.register_function{callback = function() end}",
    "#!lua name=x\nredis.register_function{function_name = {}, callback = function() end}",
    "#!lua name=x\nredis.register_function{function_name = 'a', callback = 1}",
    "#!lua name=x\nredis.register_function{function_name = 'a', callback = function() end, flags = 1}",
    "#!lua name=x\nredis.register_function{function_name = 'a', callback = function() end, flags = {'what'}}",
    "#!lua name=x\nredis.register_function{function_name = 'a', callback = function() end, flags = {{}}}",
    "#!lua name=x\nredis.register_function{function_name = 'a', callback = function() end, description = {}}",
    "#!lua name=x\nredis.register_function{function_name = 'a', callback = function() end, more = 1}",
    "#!lua name=x\nredis.register_function{[{}] = 1}",
    "#!lua name=x\nredis.register_function('a', function() end)\nredis.register_function('a', function() end)",
    "#!lua name=x\nreturn redis.REDIS_VERSION_NUM",
];
