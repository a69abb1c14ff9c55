//! What the table must answer, by example; the real server is asked in
//! `tests/command_table.rs`.

use super::*;

fn args(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn resolved(line: &str) -> &'static Command {
    resolve(&args(line)).unwrap_or_else(|why| panic!("{line}: {why:?}"))
}

fn keys_of(line: &str) -> Result<Vec<(usize, bool, bool)>, KeyError> {
    let mut keys = Vec::new();
    resolved(line).keys(&args(line), &mut keys)?;
    Ok(keys
        .iter()
        .map(|key| (key.index as usize, key.reads, key.writes))
        .collect())
}

#[test]
fn every_name_is_found_in_any_case_and_nothing_else_is() {
    for command in all() {
        let upper = command.name.to_uppercase();
        for name in [command.name, &upper] {
            assert!(
                lookup(name.as_bytes()).is_some_and(|found| std::ptr::eq(found, command)),
                "{name}"
            );
        }
        for near in [
            format!("{upper}x"),
            format!("x{upper}"),
            format!("{upper}\0"),
            upper.replace('E', "\u{5}"),
        ] {
            let known = all().iter().any(|other| other.name == near.to_lowercase());
            assert_eq!(lookup(near.as_bytes()).is_some(), known, "{near:?}");
        }
        for sub in command.subcommands() {
            let word = sub
                .name
                .rsplit('|')
                .next()
                .unwrap_or_default()
                .to_uppercase();
            assert!(
                command
                    .subcommand(word.as_bytes())
                    .is_some_and(|found| std::ptr::eq(found, sub))
            );
        }
    }
    for name in [
        "",
        "@GET",
        "[ET",
        "{et",
        "get get",
        "ge",
        "G\u{c5}T",
        &"x".repeat(25),
        &"x".repeat(24),
    ] {
        assert!(lookup(name.as_bytes()).is_none(), "{name:?}");
    }
}

#[test]
fn table_is_whole() {
    assert!(all().len() > 230, "{}", all().len());
    assert!(all().is_sorted_by_key(|command| command.name));
    for name in [
        "get",
        "lcs",
        "sintercard",
        "waitaof",
        "quit",
        "hgetex",
        "hpexpireat",
    ] {
        assert!(lookup(name.as_bytes()).is_some(), "{name}");
    }
    let get = resolved("get k");
    assert_eq!((get.arity, get.since), (2, "1.0.0"));
    assert_eq!(get.flags.names().collect::<Vec<_>>(), ["readonly", "fast"]);
}

#[test]
fn one_fixed_key_is_known_without_looking() {
    for (line, key) in [
        ("GET k", Some(1)),
        ("set k v ex 1", Some(1)),
        ("object ENCODING k", Some(2)),
        ("xgroup create k g $", Some(2)),
        ("memory usage k", Some(2)),
        ("mget k", None),
        ("sort k", None),
        ("rename a b", None),
        ("eval s 1 k", None),
        ("ping x", None),
        ("publish c m", None),
        ("watch k", None),
    ] {
        assert_eq!(resolved(line).first_key_fast(), key, "{line}");
    }
    let mut keys = Vec::new();
    for command in all()
        .iter()
        .flat_map(|command| command.subcommands().iter().chain([command]))
    {
        let Some(key) = command.first_key_fast() else {
            continue;
        };
        let least = vec!["x"; command.arity.unsigned_abs() as usize];
        assert_eq!(command.keys(&least, &mut keys), Ok(()));
        assert_eq!(
            keys.iter()
                .map(|key| key.index as usize)
                .collect::<Vec<_>>(),
            [key],
            "{}",
            command.name
        );
    }
}

#[test]
fn set_and_bitfield_say_whether_they_read() {
    assert_eq!(keys_of("set k v"), Ok(vec![(1, false, true)]));
    assert_eq!(keys_of("set k get"), Ok(vec![(1, false, true)]));
    assert_eq!(keys_of("set k v px 1 GET"), Ok(vec![(1, true, true)]));
    assert_eq!(keys_of("bitfield k get u8 0"), Ok(vec![(1, true, false)]));
    assert_eq!(
        keys_of("bitfield k get u8 0 set u8 0 1"),
        Ok(vec![(1, true, true)])
    );
}

#[test]
fn options_that_name_keys_are_not_mistaken() {
    assert_eq!(
        keys_of("sort k store store alpha"),
        Ok(vec![(1, true, false), (3, false, true)])
    );
    assert_eq!(
        keys_of("sort k by store limit 0 1"),
        Ok(vec![(1, true, false)])
    );
    assert_eq!(
        keys_of("migrate h 1 k 0 9 auth keys"),
        Ok(vec![(3, true, true)])
    );
    assert_eq!(
        keys_of("xreadgroup group streams streams count 1 streams a b 0 0").map(|keys| keys.len()),
        Ok(2)
    );
}

#[test]
fn a_number_of_keys_that_cannot_be_is_an_error() {
    for line in [
        "eval s x k",
        "eval s -1 k",
        "eval s +1 k",
        "eval s 01 k",
        "eval s 2 k",
        "eval s 18446744073709551617 k",
        "eval s 9223372036854775807 k",
        "zunionstore d 0 k",
        "zunionstore d 2 k",
        "sintercard 0 k",
        "lmpop 0 k left",
        "xread count 1 streams",
        "migrate h 1 k 0 9 keys a",
    ] {
        assert_eq!(keys_of(line), Err(KeyError::Invalid), "{line}");
    }
    assert_eq!(keys_of("eval s 0 k"), Ok(vec![]));
    assert_eq!(keys_of("ping"), Err(KeyError::NoKeys));
    assert_eq!(keys_of("ssubscribe c"), Err(KeyError::NoKeys));
}

#[test]
fn requests_are_handled_by_what_they_do_to_a_shared_connection() {
    use SessionCommand::{
        Block, Discard, Exec, Multi, Publish, Subscribe, Unsubscribe, Unwatch, Watch,
    };
    use Unsupported::{KeylessScript, Migrate, Monitor, OneServer, Replication, Wait};
    let session = |line: &str, command| {
        assert_eq!(
            resolved(line).handling_for(&args(line)),
            Handling::Session(command),
            "{line}"
        );
    };
    let refused = |line: &str, why| {
        assert_eq!(
            resolved(line).handling_for(&args(line)),
            Handling::Unsupported(why),
            "{line}"
        );
    };
    for (line, command) in [
        ("multi", Multi),
        ("exec", Exec),
        ("discard", Discard),
        ("watch k", Watch),
        ("unwatch", Unwatch),
    ] {
        session(line, command);
    }
    for (line, command) in [
        ("subscribe c", Subscribe(TopicKind::Channel)),
        ("unsubscribe", Unsubscribe(TopicKind::Channel)),
        ("psubscribe c", Subscribe(TopicKind::Pattern)),
        ("ssubscribe c", Subscribe(TopicKind::ShardChannel)),
        ("publish c m", Publish),
        ("spublish c m", Publish),
    ] {
        session(line, command);
    }
    refused("wait 0 0", Wait);
    for line in [
        "blpop k 0",
        "bzmpop 0 1 k min",
        "brpoplpush a b 0",
        "xread block 0 streams k $",
    ] {
        session(line, Block);
    }
    session(
        "XREADGROUP GROUP g c COUNT 1 NOACK BLOCK 0 STREAMS k >",
        Block,
    );
    for line in [
        "debug object k",
        "script debug yes",
        "shutdown",
        "replicaof h 1",
        "swapdb 0 1",
    ] {
        refused(line, OneServer);
    }
    refused("monitor", Monitor);
    refused("psync ? -1", Replication);
    refused("migrate h 1 k 0 9", Migrate);
    refused("fcall f 0", KeylessScript);
    for line in [
        "get k",
        "eval s 1 k",
        "object freq k",
        "xgroup destroy k g",
        "move k 1",
        "sort k",
        "xadd k * a b",
        "xread count 1 streams block $",
        "XREADGROUP GROUP block block STREAMS k >",
        "restore k 0 v",
    ] {
        assert_eq!(
            resolved(line).handling_for(&args(line)),
            Handling::Forward,
            "{line}"
        );
    }
    for line in ["script kill", "function kill"] {
        refused(line, Unsupported::ScriptKill);
    }
    refused("client tracking on", Unsupported::Tracking);
    refused("client pause 1", Unsupported::OtherClients);
    refused("config set a b", Unsupported::Settings);
    for (line, kind) in [
        ("keys *", FanOut::Keys),
        ("scan 0", FanOut::Scan),
        ("dbsize", FanOut::Size),
        ("randomkey", FanOut::RandomKey),
        ("flushall async", FanOut::Flush),
        ("script load x", FanOut::Scripts),
        ("function load x", FanOut::Functions),
        ("function list", FanOut::AnyShard),
        ("object help", FanOut::AnyShard),
        ("client help", FanOut::AnyShard),
    ] {
        assert_eq!(
            resolved(line).handling(),
            Handling::Everywhere(kind),
            "{line}"
        );
    }
    assert_eq!(
        resolved("mget a b").handling(),
        Handling::Split(SplitKind::Mget)
    );
    for line in [
        "client setname x",
        "hello 3",
        "command docs",
        "quit",
        "readonly",
        "config get x",
        "cluster info",
        "role",
        "acl whoami",
        "slowlog get",
        "info",
        "reset",
    ] {
        assert!(
            matches!(resolved(line).handling(), Handling::Local(_)),
            "{line}"
        );
    }
}

#[test]
fn whatever_is_forwarded_has_keys() {
    for command in all()
        .iter()
        .flat_map(|command| command.subcommands().iter().chain([command]))
    {
        if matches!(command.handling(), Handling::Forward | Handling::Split(_)) {
            assert!(command.has_keys(), "{}", command.name);
        }
    }
}

#[test]
fn writes_include_scripts_that_may_write() {
    for (line, writes) in [
        ("set k v", true),
        ("get k", false),
        ("eval s 1 k", true),
        ("eval_ro s 1 k", false),
        ("fcall f 1 k", true),
        ("pfcount k", false),
        ("xreadgroup group g c streams k >", true),
        ("xread streams k 0", false),
        ("watch k", false),
        ("georadius k 1 1 1 m", true),
    ] {
        assert_eq!(resolved(line).is_write(), writes, "{line}");
    }
}

#[test]
fn a_replicated_command_is_applied_where_its_effect_belongs() {
    for (line, effect) in [
        ("set k v pxat 1", StreamEffect::Keyed),
        ("rename a b", StreamEffect::Keyed),
        ("msetnx a 1 b 2", StreamEffect::Keyed),
        ("xgroup setid k g 0 entriesread 1", StreamEffect::Keyed),
        ("xclaim k g c 0 0-1 force", StreamEffect::Keyed),
        ("restore-asking k 0 v", StreamEffect::Keyed),
        ("move k 1", StreamEffect::Keyed),
        ("eval s 1 k", StreamEffect::Keyed),
        ("eval s 0", StreamEffect::Unroutable),
        ("eval s 2 k", StreamEffect::Unroutable),
        ("del a b", StreamEffect::Splittable(SplitKind::Del)),
        ("unlink a b", StreamEffect::Splittable(SplitKind::Unlink)),
        ("mset a 1 b 2", StreamEffect::Splittable(SplitKind::Mset)),
        ("function load x", StreamEffect::Broadcast),
        ("function flush", StreamEffect::Broadcast),
        ("publish c m", StreamEffect::Ignored),
        ("script load x", StreamEffect::Ignored),
        ("replconf getack *", StreamEffect::Ignored),
        ("ping", StreamEffect::Ignored),
        ("flushall", StreamEffect::WholeDatabase),
        ("swapdb 0 1", StreamEffect::WholeDatabase),
        ("config set a b", StreamEffect::Unroutable),
        ("multi", StreamEffect::Unroutable),
    ] {
        assert_eq!(
            stream_effect(resolved(line), &args(line), &mut Vec::new()),
            effect,
            "{line}"
        );
    }
}
