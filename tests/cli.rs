//! The command line from outside: exit codes, what goes to stdout and what to
//! stderr.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tempfile::TempDir;

use support::RedisServer;

const KEYS: [&str; 4] = ["a", "user:1", "user:{1}:x", "k\u{e9}"];

/// A directory with files of a config's lines.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::with_prefix("keyferry-cli-").expect("a directory"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    /// A config with one pool of these shards, named s1, s2...
    fn config(&self, name: &str, addresses: &[&str]) -> PathBuf {
        let mut text = "[pool.cache]\nlisten = [\"127.0.0.1:0\"]\nhash_tag = \"{}\"\n".to_owned();
        for (at, address) in addresses.iter().enumerate() {
            text.push_str(&format!(
                "[[pool.cache.shard]]\nname = \"s{}\"\naddr = \"{address}\"\n",
                at + 1
            ));
        }
        self.write(name, &text)
    }
}

/// Exit code, stdout and stderr.
fn keyferry(args: &[&str], stdin: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
    let output = command
        .args(args)
        .write_stdin(stdin)
        .output()
        .expect("it ran");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code().expect("an exit code"),
        text(output.stdout),
        text(output.stderr),
    )
}

fn path(file: &Path) -> &str {
    file.to_str().expect("UTF-8")
}

#[test]
fn wrong_usage_ends_with_2_and_says_so_on_stderr() {
    let wrong: [&[&str]; 6] = [
        &[],
        &["rnu"],
        &["run"],
        &["route", "-c", "x"],
        &["check", "-c", "x", "--conect"],
        &["run", "-c", "x", "--workers", "0"],
    ];
    for args in wrong {
        let (code, stdout, stderr) = keyferry(args, "");
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        assert!(
            stderr.contains("Usage:") || stderr.contains("error:"),
            "{args:?}: {stderr}"
        );
    }
    let (code, stdout, _) = keyferry(&["--help"], "");
    assert_eq!(code, 0);
    assert!(
        stdout.contains("route") && stdout.contains("check"),
        "{stdout}"
    );
}

#[test]
fn a_wrong_config_ends_every_command_with_2_and_its_place() {
    let files = Files::new();
    let file = files.write(
        "bad.toml",
        "[pool.cache]\nlisten = [\"127.0.0.1:0\"]\nhsah = \"md5\"\n",
    );
    let expected = format!(
        "error: there are no shards\n  {0}:1:1  [pool.cache]\n  help: write [[pool.cache.shard]] with an `addr`\n\
         error: unknown key `hsah`\n  {0}:3:1  pool.cache.hsah\n  help: did you mean `hash`?\n",
        file.display()
    );
    for args in [
        &["run", "-c", path(&file)][..],
        &["check", "-c", path(&file)],
        &["route", "-c", path(&file), "k"],
    ] {
        let (code, stdout, stderr) = keyferry(args, "");
        assert_eq!(
            (code, stdout.as_str(), stderr.as_str()),
            (2, "", expected.as_str()),
            "{args:?}"
        );
    }
    let (code, stdout, _) = keyferry(&["check", "--json", "-c", path(&file)], "");
    assert_eq!(code, 2);
    let object: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&object["v"], &object["ok"]), (&1.into(), &false.into()));
    assert_eq!(object["problems"][1]["line"], 3);
    assert_eq!(object["problems"][1]["help"], "did you mean `hash`?");

    let (code, _, stderr) = keyferry(&["check", "-c", "/nowhere/a.toml"], "");
    assert_eq!(code, 2);
    assert!(
        stderr.starts_with("error: cannot read the config: No such file"),
        "{stderr}"
    );
}

#[test]
fn route_prints_a_line_for_each_key() {
    let files = Files::new();
    let file = files.config("a.toml", &["127.0.0.1:7001", "127.0.0.1:7002"]);
    let base = ["route", "-c", path(&file)];
    let (code, from_args, stderr) = keyferry(&[&base[..], &KEYS[..]].concat(), "");
    assert_eq!((code, stderr.as_str()), (0, ""));
    let (code, from_stdin, _) = keyferry(&[&base[..], &["-"]].concat(), &KEYS.join("\n"));
    assert_eq!((code, &from_stdin), (0, &from_args));
    for (line, key) in from_args.lines().zip(KEYS) {
        let fields: Vec<_> = line.split('\t').collect();
        assert_eq!(fields.len(), 3, "{line}");
        assert_eq!(fields[0], key);
        assert!(
            ["s1\t127.0.0.1:7001", "s2\t127.0.0.1:7002"].contains(&fields[1..].join("\t").as_str()),
            "{line}"
        );
    }
    let shard_of = |key: &str| {
        let (_, line, _) = keyferry(&[&base[..], &[key]].concat(), "");
        line.split_once('\t').map(|(_, shard)| shard.to_owned())
    };
    assert_eq!(
        shard_of("user:{1}:x"),
        shard_of("1"),
        "a hash tag alone is hashed"
    );

    let (code, hex, _) = keyferry(&[&base[..], &["--hex", "757365723a31"]].concat(), "");
    let (_, plain, _) = keyferry(&[&base[..], &["user:1"]].concat(), "");
    assert_eq!((code, hex), (0, plain.replace("user:1", "757365723a31")));
    let (_, json, _) = keyferry(&[&base[..], &["--json", "--hex", "ff"]].concat(), "");
    let object: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&object["v"], &object["key_hex"]),
        (&1.into(), &"ff".into())
    );

    let (code, stdout, stderr) = keyferry(&[&base[..], &["--hex", "6b", "7"]].concat(), "");
    assert_eq!((code, stdout.lines().count()), (2, 1), "{stdout}");
    assert!(
        stderr.starts_with("error: a hex key has two digits for each byte"),
        "{stderr}"
    );
}

#[test]
fn a_pool_must_be_named_when_there_are_several() {
    let files = Files::new();
    let pool = |name: &str| {
        format!(
            "[pool.{name}]\nlisten = [\"127.0.0.1:0\"]\nshard = [{{ addr = \"127.0.0.1:7001\" }}]\n"
        )
    };
    let file = files.write("a.toml", &(pool("x") + &pool("y")));
    let (code, _, stderr) = keyferry(&["route", "-c", path(&file), "k"], "");
    assert_eq!(code, 2);
    assert_eq!(
        stderr,
        format!(
            "error: the config has more than one pool\n  {}\n  help: name one with -p: x, y\n",
            file.display()
        )
    );
    assert_eq!(
        keyferry(&["route", "-c", path(&file), "-p", "y", "k"], "").0,
        0
    );
    let (code, _, stderr) = keyferry(&["route", "-c", path(&file), "-p", "z", "k"], "");
    assert_eq!(code, 2);
    assert!(
        stderr.starts_with("error: there is no pool `z`"),
        "{stderr}"
    );
}

#[test]
fn diff_tells_what_moves() {
    let files = Files::new();
    let two = files.config("two.toml", &["127.0.0.1:7001", "127.0.0.1:7002"]);
    let three = files.config(
        "three.toml",
        &["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"],
    );
    let (code, same, _) = keyferry(&["config", "diff", path(&two), path(&two)], "");
    assert_eq!(
        (code, same.as_str()),
        (
            0,
            "pool cache: 0.0 % of the key space moves (of 200000 sample keys)\n"
        )
    );
    let (code, text, _) = keyferry(&["config", "diff", path(&two), path(&three)], "");
    assert_eq!(code, 0);
    assert!(
        text.lines()
            .skip(1)
            .all(|line| line.ends_with("-> s3 (127.0.0.1:7003)")),
        "{text}"
    );
    let (_, json, _) = keyferry(
        &[
            "config",
            "diff",
            "--json",
            "-p",
            "cache",
            path(&two),
            path(&three),
        ],
        "",
    );
    let object: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let moving = object["pools"][0]["moving_percent"]
        .as_f64()
        .expect("a number");
    let pairs = object["pools"][0]["pairs"].as_array().expect("pairs");
    let sum: f64 = pairs
        .iter()
        .filter_map(|pair| pair["percent"].as_f64())
        .sum();
    assert!(
        (20.0..50.0).contains(&moving) && (moving - sum).abs() < 0.001,
        "{json}"
    );

    let layout = files.write(
        "to.toml",
        "hash_tag = \"{}\"\n[[shard]]\nname = \"s1\"\naddr = \"127.0.0.1:7001\"\n",
    );
    let (code, text, stderr) = keyferry(&["config", "diff", path(&two), path(&layout)], "");
    assert_eq!((code, text.lines().count()), (0, 2), "{text}{stderr}");
    let (code, _, stderr) = keyferry(&["config", "diff", "-p", "z", path(&two), path(&three)], "");
    assert_eq!(code, 2);
    assert!(
        stderr.starts_with("error: there is no pool `z`"),
        "{stderr}"
    );
}

#[test]
fn check_dials_the_shards_if_asked() {
    let server = RedisServer::start(&["--requirepass", "hunter2-of-the-test"]);
    let files = Files::new();
    let config = |password: &str| {
        format!(
            "[pool.cache]\nlisten = [\"127.0.0.1:0\"]\nupstream = {{ password = \"{password}\" }}\n\
             [[pool.cache.shard]]\naddr = \"{}\"\n",
            server.address()
        )
    };
    let file = files.write("a.toml", &config("hunter2-of-the-test"));
    let (code, stdout, stderr) = keyferry(&["check", "-c", path(&file)], "");
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains(": ok\n") && !stdout.contains("up, answered"),
        "{stdout}"
    );
    let (code, up, stderr) = keyferry(&["check", "--connect", "-c", path(&file)], "");
    assert_eq!(code, 0, "{up}{stderr}");
    assert!(up.contains("up, answered in"), "{up}");

    let file = files.write("wrong.toml", &config("hunter3"));
    let (code, down, stderr) = keyferry(&["check", "--connect", "-c", path(&file)], "");
    assert_eq!(code, 1);
    assert!(
        down.contains("DOWN") && down.contains(&server.address()),
        "{down}"
    );
    let (code, json, _) = keyferry(&["check", "--connect", "--json", "-c", path(&file)], "");
    let object: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (code, &object["pools"][0]["shards"][0]["connect"]["ok"]),
        (1, &false.into())
    );
    for text in [stdout, up, down, stderr, json] {
        assert!(
            !text.contains("hunter2") && !text.contains("hunter3"),
            "a secret in: {text}"
        );
    }
}

#[test]
fn a_converted_nutcracker_yml_places_every_key_alike() {
    let files = Files::new();
    let yml = files.write(
        "n.yml",
        "a.b:\n  listen: 127.0.0.1:22121\n  hash: murmur\n  hash_tag: \"{}\"\n  redis: true\n  redis_db: 3\n  client_connections: 9\n  servers:\n   - 10.0.0.1:11211:2\n   - ::1:06379:1\n   - /run/r.sock:3\n   - h:1:1 a\\\"b\nc:\n  listen: /tmp/c.sock 0600\n  distribution: modula\n  timeout: 1234\n  redis: true\n  servers:\n   - h:1:1\n   - h:2:2000000\n",
    );
    let (yml, toml) = (yml.to_str().unwrap(), files.0.path().join("n.toml"));
    let toml = toml.to_str().unwrap();
    let (code, out, err) = keyferry(&["convert", yml], "");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.contains("# client_connections, which twemproxy reads and ignores"),
        "{out}"
    );
    assert_eq!(
        keyferry(&["convert", yml, "-o", toml], ""),
        (0, String::new(), String::new())
    );
    assert_eq!(fs::read_to_string(toml).unwrap(), out);
    let keys: String = (0..2_000)
        .map(|number| format!("k{number}:{{{}}}\n", number % 700))
        .collect();
    for pool in ["a.b", "c"] {
        let by = |file| keyferry(&["route", "-c", file, "-p", pool, "-"], &keys);
        let (by_yml, by_toml) = (by(yml), by(toml));
        assert_eq!(by_yml.0, 0, "{}", by_yml.2);
        assert!(by_yml == by_toml, "{pool}: keys have other shards");
    }
    let (code, _, err) = keyferry(&["convert", yml, "-o", toml], "");
    assert_eq!(code, 1, "a file that is there stays: {err}");
    let wrong = files.write("w.yml", "a:\n  timeout: x\n  servers:\n   - h:1:1\n");
    let (code, _, err) = keyferry(&["convert", wrong.to_str().unwrap()], "");
    assert_eq!(code, 2);
    assert!(
        err.starts_with("error: directive \"timeout\" is not a number\n"),
        "{err}"
    );
    assert!(err.contains("w.yml:2:12  a.timeout: x\n"), "{err}");
}
