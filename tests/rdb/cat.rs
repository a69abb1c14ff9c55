//! `keyferry rdb cat` and `keyferry rdb info` on the files of
//! `tests/fixtures/rdb`: every line is JSON, what it says is what other
//! people's decoders say, and a damaged file is printed as far as it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::{Map, Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rdb")
}

/// A row of `fixtures.tsv`: the file's name, what it holds, notes.
fn fixtures() -> Vec<(String, String, String)> {
    let table = std::fs::read_to_string(folder().join("fixtures.tsv")).unwrap();
    let rows: Vec<_> = table
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<_> = line.split('\t').map(str::to_owned).collect();
            (columns[0].clone(), columns[7].clone(), columns[8].clone())
        })
        .collect();
    assert!(rows.len() > 70, "the list is there");
    rows
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn lines(&self) -> Vec<Value> {
        let parsed = self.stdout.lines().map(serde_json::from_str);
        parsed.collect::<Result<_, _>>().expect(&self.stdout)
    }
}

fn rdb(args: &[&str], stdin: &[u8]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
    let output = command.arg("rdb").args(args).write_stdin(stdin).output();
    let output = output.expect("it ran");
    Ran {
        code: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn path(name: &str) -> String {
    folder().join(name).to_str().unwrap().to_owned()
}

fn cat(name: &str) -> Ran {
    rdb(&["cat", &path(name)], b"")
}

/// Text, or `{"base64":..}`, as the bytes it stands for.
fn bytes(value: &Value) -> Vec<u8> {
    if let Value::String(text) = value {
        return text.clone().into_bytes();
    }
    let encoded = value["base64"]
        .as_str()
        .unwrap_or_else(|| panic!("{value}"));
    let six = |character: u8| match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other}"),
    };
    let digits = encoded.trim_end_matches('=').bytes().map(six);
    let digits: Vec<u32> = digits.map(u32::from).collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let word = group.iter().fold(0, |word, six| word << 6 | six) << (6 * (4 - group.len()));
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    bytes
}

/// Text as Go's encoder writes it: one U+FFFD for each byte that is not UTF-8.
fn go_text(value: &Value) -> String {
    let mut text = String::new();
    for chunk in bytes(value).utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text
}

fn items(line: &Value) -> &[Value] {
    line["value"].as_array().map_or(&[], |items| &items[..])
}

fn score(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

/// `0:string x2,18:quicklist2 x3` as a number of keys that we print.
fn held(name: &str, text: &str) -> usize {
    // Its header is of no version that exists.
    if name.contains("rdb987") {
        return 0;
    }
    let parts = text.split(',').filter(|part| *part != "no keys");
    parts
        .map(|part| part.rsplit_once('x').unwrap().1.parse::<usize>().unwrap())
        .sum()
}

/// How a file that stops early is told.
fn stops(name: &str, notes: &str) -> bool {
    name.contains("rdb987") || notes.contains("crc=BAD") || notes.contains("unknown type")
}

#[test]
fn every_file_is_printed_to_its_end_or_to_where_it_stops() {
    for (name, holds, notes) in fixtures() {
        let ran = cat(&name);
        assert_eq!(ran.lines().len(), held(&name, &holds), "{name}");
        if stops(&name, &notes) {
            assert_eq!(ran.code, 1, "{name}");
            assert!(ran.stderr.contains("RDB byte "), "{name}: {}", ran.stderr);
        } else {
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{name}");
        }
        for line in ran.lines() {
            assert!(line["key"].is_string() || line["key"]["base64"].is_string());
            assert!(
                !line["value"].is_null() && line["error"].is_null(),
                "{name}: {line}"
            );
        }
    }
}

/// A line in the words of HDT3213/rdb, without its sizes and encodings.
fn in_hdt_words(line: &Value) -> Value {
    let (mut out, mut list) = (Map::new(), Vec::new());
    let (mut hash, mut expire) = (Map::new(), Map::new());
    match line["type"].as_str().unwrap() {
        "string" => list.push(go_text(&line["value"]).into()),
        "list" | "set" => list.extend(items(line).iter().map(|item| go_text(item).into())),
        "zset" => list.extend(items(line).iter().map(
            |item| json!({"member": go_text(&item["member"]), "score": score(&item["score"])}),
        )),
        "hash" => {
            for item in items(line) {
                let field = go_text(&item["field"]);
                hash.insert(field.clone(), go_text(&item["value"]).into());
                let at_ms = item["expires_at_ms"].as_i64();
                expire.insert(field, at_ms.unwrap_or(0).into());
            }
        }
        "stream" => stream_in_hdt_words(&line["value"], &mut out, &mut list),
        _ => {}
    }
    let groups = out.remove("groups").unwrap_or_else(|| json!([]));
    out.insert("items".into(), list.into());
    out.insert("hash".into(), hash.into());
    out.insert("expire".into(), expire.into());
    out.insert("groups".into(), groups);
    Value::Object(out)
}

fn stream_in_hdt_words(value: &Value, out: &mut Map<String, Value>, list: &mut Vec<Value>) {
    for entry in value["entries"].as_array().unwrap() {
        let fields: Map<_, _> = entry["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (go_text(&pair[0]), go_text(&pair[1]).into()))
            .collect();
        list.push(json!({"id": entry["id"], "fields": fields}));
    }
    for (ours, theirs) in [
        ("length", "len"),
        ("last_id", "lastId"),
        ("first_id", "firstId"),
        ("max_deleted_id", "maxDeletedId"),
        ("entries_added", "addedEntriesCount"),
    ] {
        if !value[ours].is_null() {
            out.insert(theirs.to_owned(), value[ours].clone());
        }
    }
    let groups = value["groups"].as_array().unwrap().iter().map(|group| {
        let mut pending = Vec::new();
        let consumers: Vec<Value> = group["consumers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|consumer| {
                let owned = consumer["pending"].as_array().unwrap();
                pending.extend(owned.iter().map(|entry| {
                    json!({"id": entry["id"], "deliveryTime": entry["delivered_at_ms"],
                           "deliveryCount": entry["deliveries"]})
                }));
                let ids: Vec<_> = owned.iter().map(|entry| entry["id"].clone()).collect();
                json!({"name": go_text(&consumer["name"]), "seenTime": consumer["seen_at_ms"], "pending": ids})
            })
            .collect();
        pending.sort_by_key(|entry| {
            let (ms, seq) = entry["id"].as_str().unwrap().split_once('-').unwrap();
            (ms.parse::<u64>().unwrap(), seq.parse::<u64>().unwrap())
        });
        json!({"name": go_text(&group["name"]), "lastId": group["last_id"],
               "pending": pending, "consumers": consumers})
    });
    out.insert("groups".into(), groups.collect());
}

/// An oracle's entry in the shape of [`in_hdt_words`].
fn oracle(entry: &Value) -> Value {
    let mut list = Vec::new();
    for name in ["value", "values", "members"] {
        match &entry[name] {
            Value::Array(values) => list.extend(values.iter().cloned()),
            Value::Null => {}
            value => list.push(value.clone()),
        }
    }
    let stream = entry["type"] == "stream";
    for part in entry["entries"].as_array().into_iter().flatten() {
        if !stream {
            list.push(json!({"member": part["member"], "score": score(&part["score"])}));
            continue;
        }
        for message in part["msgs"].as_array().into_iter().flatten() {
            if message["deleted"] == false {
                list.push(json!({"id": message["id"], "fields": message["fields"]}));
            }
        }
    }
    let hash = entry["hash"].as_object().cloned().unwrap_or_default();
    let expire = match entry["expire"].as_object() {
        Some(expire) => expire.clone(),
        None => hash.keys().map(|field| (field.clone(), 0.into())).collect(),
    };
    let mut groups = entry["groups"].as_array().cloned().unwrap_or_default();
    for group in &mut groups {
        let group = group.as_object_mut().unwrap();
        group.remove("entriesRead");
        group.entry("pending").or_insert(json!([]));
        let consumers = group.entry("consumers").or_insert(json!([]));
        for consumer in consumers.as_array_mut().unwrap() {
            let consumer = consumer.as_object_mut().unwrap();
            consumer.remove("activeTime");
            consumer.entry("pending").or_insert(json!([]));
        }
    }
    let mut out = json!({"items": list, "hash": hash, "expire": expire, "groups": groups});
    for name in [
        "len",
        "lastId",
        "firstId",
        "maxDeletedId",
        "addedEntriesCount",
    ] {
        if stream && !entry[name].is_null() {
            out[name] = entry[name].clone();
        }
    }
    out
}

#[test]
fn lines_agree_with_hdt3213() {
    let (mut files, mut entries) = (0, 0);
    for (name, _, _) in fixtures() {
        let Ok(told) = std::fs::read_to_string(path(&format!("{name}.hdt3213.json"))) else {
            continue;
        };
        let told: Vec<Value> = serde_json::from_str(&told).unwrap();
        let told: Vec<_> = told
            .iter()
            .filter(|entry| entry["type"] != "aux" && entry["type"] != "functions")
            .collect();
        let lines = cat(&name).lines();
        assert_eq!(lines.len(), told.len(), "{name}");
        for (line, entry) in lines.iter().zip(&told) {
            assert_eq!(entry["key"], go_text(&line["key"]), "{name}");
            assert_eq!(entry["db"], line["db"], "{name}");
            let expires = line["expires_at_ms"].is_i64();
            assert_eq!(entry["expiration"].is_string(), expires, "{name}");
            assert_eq!(in_hdt_words(line), oracle(entry), "{name} {}", line["key"]);
            entries += 1;
        }
        files += 1;
    }
    assert!(
        files == 29 && entries > 80,
        "{files} files with {entries} entries"
    );
}

/// `rdb --command json` escapes every byte that is not printable ASCII as the
/// code point of its number, and gives a hash's or list's own shape.
fn rdbrs_text(value: &Value) -> String {
    bytes(value).iter().map(|byte| char::from(*byte)).collect()
}

/// Numbers as text; sets in order, since both sides keep the file's.
fn as_text(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.to_string().into(),
        Value::Array(values) => values.iter().map(as_text).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(field, value)| (field.clone(), as_text(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

#[test]
fn lines_agree_with_rdb_rs() {
    let mut compared = 0;
    for (name, _, _) in fixtures() {
        let Ok(told) = std::fs::read(path(&format!("{name}.rdbrs.json"))) else {
            continue;
        };
        let told: Vec<Value> = serde_json::from_slice(&told).unwrap();
        let mut ours: BTreeMap<u64, Map<String, Value>> = BTreeMap::new();
        for line in cat(&name).lines() {
            let value = match line["type"].as_str().unwrap() {
                "string" => rdbrs_text(&line["value"]).into(),
                "list" | "set" => items(&line).iter().map(rdbrs_text).collect(),
                "zset" => items(&line)
                    .iter()
                    .map(|item| {
                        (
                            rdbrs_text(&item["member"]),
                            score(&item["score"]).to_string().into(),
                        )
                    })
                    .collect::<Map<_, _>>()
                    .into(),
                "hash" => items(&line)
                    .iter()
                    .map(|item| {
                        (
                            rdbrs_text(&item["field"]),
                            rdbrs_text(&item["value"]).into(),
                        )
                    })
                    .collect::<Map<_, _>>()
                    .into(),
                other => panic!("{name}: {other}"),
            };
            let db = ours.entry(line["db"].as_u64().unwrap()).or_default();
            db.insert(rdbrs_text(&line["key"]), value);
            compared += 1;
        }
        let ours: Vec<Value> = ours
            .into_values()
            .map(|db| as_text(&Value::Object(db)))
            .collect();
        let told: Vec<Value> = told
            .iter()
            .map(as_text)
            .filter(|db| db != &json!({}))
            .collect();
        assert_eq!(ours, told, "{name}");
    }
    assert!(compared > 50, "{compared}");
}

/// `serde_json`, which reads the lines here, is off by one in the last place
/// of some numbers.
fn rounded(score: f64) -> Vec<u8> {
    format!("{score:.13e}").into_bytes()
}

type Elements = Vec<(Vec<u8>, Vec<u8>)>;

fn elements(line: &Value) -> Elements {
    let alone = |value: &Value| (bytes(value), Vec::new());
    match line["type"].as_str().unwrap() {
        "string" => vec![alone(&line["value"])],
        "list" | "set" => items(line).iter().map(alone).collect(),
        "zset" => items(line)
            .iter()
            .map(|item| (bytes(&item["member"]), rounded(score(&item["score"]))))
            .collect(),
        _ => items(line)
            .iter()
            .map(|item| (bytes(&item["field"]), bytes(&item["value"])))
            .collect(),
    }
}

fn theirs(value: ::rdb::RdbValue) -> Option<(Vec<u8>, Elements)> {
    use ::rdb::RdbValue;
    let alone = |bytes| (bytes, Vec::new());
    Some(match value {
        RdbValue::String { key, value, .. } => (key, vec![alone(value)]),
        RdbValue::List { key, values, .. } => (key, values.into_iter().map(alone).collect()),
        RdbValue::Set { key, members, .. } => (key, members.into_iter().map(alone).collect()),
        RdbValue::Hash { key, values, .. } => (key, values.into_iter().collect()),
        RdbValue::SortedSet { key, values, .. } => {
            let scored = |(score, member): (f64, Vec<u8>)| (member, rounded(score));
            (key, values.into_iter().map(scored).collect())
        }
        _ => return None,
    })
}

#[test]
fn lines_agree_with_the_rdb_crate() {
    let mut compared = 0;
    for (name, _, notes) in fixtures() {
        // It refuses Valkey's header, and knows fewer opcodes than we do.
        let file = std::fs::read(path(&name)).unwrap();
        if stops(&name, &notes) || file.starts_with(b"VALKEY") {
            continue;
        }
        let decoder = ::rdb::RdbDecoder::new(Cursor::new(&file), ::rdb::filter::Simple::new());
        let read: Result<Vec<_>, _> = decoder.and_then(|decoder| decoder.collect());
        let Ok(read) = read else { continue };
        let theirs: Vec<_> = read.into_iter().filter_map(theirs).collect();
        // It skips streams and modules.
        let lines = cat(&name).lines().into_iter();
        let ours: Vec<_> = lines
            .filter(|line| line["type"] != "stream" && line["type"] != "module")
            .map(|line| (bytes(&line["key"]), elements(&line)))
            .collect();
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{name}");
        }
        compared += ours.len();
    }
    assert!(compared > 500, "{compared}");
}

#[test]
fn filters_leave_out_what_is_not_wanted() {
    let name = path("rdbtools__multiple_databases.rdb");
    let all = rdb(&["cat", &name], b"").lines();
    let dbs: BTreeSet<_> = all
        .iter()
        .map(|line| line["db"].as_u64().unwrap())
        .collect();
    assert_eq!(dbs, BTreeSet::from([0, 2]));
    let two = rdb(&["cat", &name, "--db", "2", "--keys-only"], b"").lines();
    assert_eq!(two.len(), 1);
    assert_eq!((&two[0]["db"], &two[0]["value"]), (&json!(2), &Value::Null));

    let name = path("rdbtools__parser_filters.rdb");
    let all = rdb(&["cat", &name], b"").lines();
    let wanted = rdb(
        &[
            "cat", &name, "--prefix", "s", "--type", "set", "--type", "zset",
        ],
        b"",
    );
    let expected: Vec<_> = all
        .iter()
        .filter(|line| {
            line["key"].as_str().unwrap().starts_with('s')
                && (line["type"] == "set" || line["type"] == "zset")
        })
        .cloned()
        .collect();
    assert!(!expected.is_empty() && expected.len() < all.len());
    assert_eq!(wanted.lines(), expected);
    let wrong = rdb(&["cat", &name, "--type", "hsah"], b"");
    assert_eq!((wrong.code, wrong.stdout.as_str()), (2, ""));
    assert!(
        wrong.stderr.contains("string, list, set"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn a_cut_or_unknown_file_is_told_as_far_as_it_goes() {
    let file = std::fs::read(path("rdbtools__parser_filters.rdb")).unwrap();
    let whole = rdb(&["cat", "-"], &file);
    assert_eq!(whole.code, 0);
    let cut = file.len() / 2;
    let half = rdb(&["cat", "-"], &file[..cut]);
    assert_eq!(half.code, 1);
    let (all, some) = (whole.lines(), half.lines());
    assert!(!some.is_empty() && some[..] == all[..some.len()]);
    let place = format!("stdin: RDB byte {cut} (opcode or type ");
    assert!(half.stderr.contains(&place), "{}", half.stderr);
    assert!(half.stderr.contains("last key \""), "{}", half.stderr);

    let info = rdb(&["info", "-", "--json"], &file[..cut]);
    let object: Value = serde_json::from_str(&info.stdout).unwrap();
    assert_eq!((info.code, &object["complete"]), (1, &json!(false)));
    assert_eq!(object["error"]["offset"], cut);
    assert!(object["error"]["last_key"].is_string());
    let keys: u64 = object["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["keys"].as_u64().unwrap())
        .sum();
    assert_eq!(keys, some.len() as u64);
    let text = rdb(&["info", "-"], &file[..cut]);
    assert!(text.stdout.starts_with("INCOMPLETE: "), "{}", text.stdout);

    let other = rdb(&["info", "-"], b"#!/bin/sh\nexit 0\n");
    assert_eq!(other.code, 1);
    assert!(
        other.stderr.contains("RDB byte 0: not an RDB header"),
        "{}",
        other.stderr
    );
    let nowhere = rdb(&["cat", "/nowhere/dump.rdb"], b"");
    assert_eq!(nowhere.code, 2);
    assert!(
        nowhere
            .stderr
            .starts_with("error: cannot open /nowhere/dump.rdb")
    );
    assert_eq!(rdb(&["info", path("").as_str()], b"").code, 2);
}

#[test]
fn info_counts_what_the_list_says() {
    for (name, holds, notes) in fixtures() {
        let ran = rdb(&["info", "--json", &path(&name)], b"");
        let object: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(object["v"], 1);
        assert_eq!(object["complete"], !stops(&name, &notes), "{name}");
        assert_eq!(
            ran.code,
            i32::from(stops(&name, &notes)),
            "{name}: {}",
            ran.stderr
        );
        let groups = object["groups"].as_array().unwrap();
        let keys: u64 = groups
            .iter()
            .map(|group| group["keys"].as_u64().unwrap())
            .sum();
        assert_eq!(keys, held(&name, &holds) as u64, "{name}");
        let mut encodings = 0;
        for group in groups {
            let counts = group["encodings"].as_object().unwrap().values();
            encodings += counts.map(|keys| keys.as_u64().unwrap()).sum::<u64>();
        }
        assert_eq!(encodings, keys, "{name}");
        if let Some(checksum) = object["checksum"].as_str() {
            let note = match checksum {
                "verified" => "crc=ok",
                "zero" => "crc=zero",
                _ => "no crc field",
            };
            assert!(notes.contains(note), "{name}: {checksum}");
        }
        let largest = object["largest_by_bytes"].as_array().unwrap();
        assert_eq!(largest.len() as u64, keys.min(10), "{name}");
        let sizes: Vec<_> = largest
            .iter()
            .map(|key| key["bytes"].as_u64().unwrap())
            .collect();
        assert!(sizes.is_sorted_by(|a, b| a >= b), "{name}: {sizes:?}");
    }
}

#[test]
fn info_tells_functions_modules_slots_and_expiry() {
    let object = |name: &str| {
        let ran = rdb(&["info", "--json", &path(name)], b"");
        serde_json::from_str::<Value>(&ran.stdout).unwrap()
    };
    let functions = object("hdt3213__function.rdb");
    assert_eq!(functions["functions"]["count"], 1);
    assert_eq!(functions["functions"]["first"][0]["name"], "mylib");
    assert_eq!(
        functions["created_at_ms"].as_i64().map(|ms| ms % 1000),
        Some(0)
    );
    let modules = object("rdbtools__redis_60_with_module_aux.rdb");
    let name = modules["module_data"]["first"][0]["name"].as_str().unwrap();
    assert_eq!(name.len(), 9);
    assert!(
        object("librdb__cluster_slot_info.rdb")["slots"]
            .as_u64()
            .unwrap()
            > 0
    );
    let expiring = object("rdbtools__keys_with_expiry.rdb");
    assert_eq!(expiring["groups"][0]["expiring"], 1);
    assert_eq!(expiring["groups"][0]["expired_now"], 1);
    let text = rdb(&["info", "--top", "1", &path("hdt3213__listpack.rdb")], b"").stdout;
    for part in [
        "version    REDIS0010",
        "checksum   verified",
        "hash_listpack 1",
        "largest by elements",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    // A pipe whose reader is gone: `keyferry rdb cat FILE | head -0`.
    let program = Path::new(env!("CARGO_BIN_EXE_keyferry"));
    let file = path("librdb__100_lists.rdb");
    let script = format!(
        "{} rdb cat {file} | head -n 1; exit ${{PIPESTATUS[0]}}",
        program.display()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        output.stdout.iter().filter(|byte| **byte == b'\n').count(),
        1
    );
}

/// A file of one key whose value is longer than what is held whole.
fn large_file(value_type: u8, value: &[u8]) -> Vec<u8> {
    let mut file = b"REDIS0011\xfe\x00".to_vec();
    file.extend_from_slice(&[value_type, 1, b'k']);
    file.extend_from_slice(value);
    file.extend_from_slice(b"\x00\x01n\x01v\xff\0\0\0\0\0\0\0\0");
    file
}

fn long(len: usize) -> Vec<u8> {
    let mut length = vec![0x80];
    length.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
    length
}

#[test]
fn values_in_parts_are_one_line_and_are_counted_whole() {
    const BYTES: usize = 20 << 20;
    let text: Vec<u8> = (0..BYTES).map(|at| b'a' + (at % 23) as u8).collect();
    let string = large_file(0, &[long(BYTES), text.clone()].concat());
    let ran = rdb(&["cat", "-"], &string);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let lines = ran.lines();
    assert!(bytes(&lines[0]["value"]) == text);
    assert_eq!((lines.len(), &lines[1]["value"]), (2, &json!("v")));

    let mut list = long(BYTES / 32);
    for at in 0..BYTES / 32 {
        list.push(32);
        list.extend_from_slice(format!("{at:032}").as_bytes());
    }
    let file = large_file(1, &list);
    let ran = rdb(&["cat", "-"], &file);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let lines = ran.lines();
    assert_eq!(items(&lines[0]).len(), BYTES / 32);
    assert_eq!(items(&lines[0])[777], format!("{:032}", 777));
    assert_eq!((lines.len(), &lines[1]["value"]), (2, &json!("v")));
    assert_eq!(rdb(&["cat", "-", "--keys-only"], &file).lines().len(), 2);
    assert_eq!(rdb(&["cat", "-", "--prefix", "n"], &file).lines().len(), 1);

    let info = rdb(&["info", "--json", "-"], &file);
    let object: Value = serde_json::from_str(&info.stdout).unwrap();
    let largest = &object["largest_by_elements"][0];
    assert_eq!(
        (&largest["elements"], &largest["bytes"]),
        (&json!(BYTES / 32), &json!(list.len()))
    );

    let cut = rdb(&["cat", "-"], &file[..file.len() / 2 + BYTES / 3]);
    assert_eq!(cut.code, 1);
    let lines = cut.lines();
    assert!(items(&lines[0]).len() > BYTES / 64);
    assert!(
        lines[0]["error"].as_str().unwrap().contains("cut off"),
        "{}",
        lines[0]["error"]
    );
}
