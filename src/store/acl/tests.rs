use super::*;
use crate::store::commands::OwnedRequest;

fn rules(line: &str) -> Vec<Vec<u8>> {
    merge_selectors(line.split(' ').map(str::as_bytes)).expect("selectors end")
}

fn user(line: &str) -> User {
    Users::new().staged(b"u", &rules(line)).expect("rules")
}

fn told(user: &User) -> String {
    String::from_utf8_lossy(&user.describe()).into_owned()
}

fn check(user: &User, line: &str) -> Result<(), Denied> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let request = OwnedRequest::from_words(&words).expect("a request");
    let second = words.get(1).map(|word| [words[0], b"|", word].concat());
    let sub = second.and_then(|name| catalog().find(&name));
    let number = sub.or_else(|| catalog().find(words[0]));
    user.check(number.expect("a command"), request.args())
}

#[test]
fn lists_are_as_redis_tells_them() {
    for (line, list) in [
        ("on", "on resetchannels -@all"),
        (
            "on >p ~k* +get &ch*",
            "on #148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940 ~k* \
             resetchannels &ch* -@all +get",
        ),
        (
            "(+get ~x*) (%R~y +set) () nopass",
            "off nopass resetchannels -@all (~x* resetchannels -@all +get) (%R~y resetchannels \
             -@all +set) (resetchannels -@all)",
        ),
        ("%R~x %W~x ~* allkeys", "off ~* resetchannels -@all"),
        ("%R~x %W~x %W~y", "off ~x %W~y resetchannels -@all"),
        ("%R ~", "off ~ resetchannels -@all"),
        ("on nopass +@all allchannels", "on nopass &* +@all"),
        ("reset", "off sanitize-payload resetchannels -@all"),
        ("+@all -@write", "off resetchannels +@all -@write"),
        (
            "-@all +@read +@write -get",
            "off resetchannels -@all +@write +@read -get",
        ),
    ] {
        assert_eq!(told(&user(line)), list, "{line}");
    }
    assert_eq!(told(&User::all_powerful()), "on nopass ~* &* +@all");
}

#[test]
fn wrong_rules_change_nothing() {
    for (line, number, why) in [
        ("on wrong", 1, RuleError::Syntax),
        ("~* ~x", 1, RuleError::AfterAllKeys),
        ("~* %R~x", 1, RuleError::AfterAllKeys),
        ("&* &x", 1, RuleError::AfterAllChannels),
        ("+nosuch", 0, RuleError::Unknown),
        ("+@nosuch", 0, RuleError::Unknown),
        ("-select|1", 0, RuleError::Unknown),
        ("+get|", 0, RuleError::Syntax),
        ("+config|nosuch", 0, RuleError::Unknown),
        ("+config|set|x", 0, RuleError::FirstArgumentOfSubcommand),
        ("%RR~x", 0, RuleError::Syntax),
        ("%~x", 0, RuleError::Syntax),
        ("(on)", 0, RuleError::Syntax),
        ("#zz", 0, RuleError::Hash),
        ("<none", 0, RuleError::NoSuchPassword),
        (")", 0, RuleError::Syntax),
    ] {
        let staged = Users::new().staged(b"u", &rules(line));
        assert_eq!(staged.err(), Some((number, why)), "{line}");
    }
}

#[test]
fn passwords_are_hashes() {
    let mut user = user("on >a >b >a");
    assert_eq!(user.passwords().len(), 2);
    assert!(user.admits(b"a") && user.admits(b"b") && !user.admits(b"c"));
    user.apply(b"<a").expect("a rule");
    assert!(!user.admits(b"a"));
    let hash = [b"!".as_slice(), &hash(b"b")].concat();
    user.apply(&hash).expect("a rule");
    assert!(!user.admits(b"b"));
    user.apply(b"nopass").expect("a rule");
    assert!(user.admits(b"whatever"));
    user.apply(b"off").expect("a rule");
    assert!(!user.admits(b"whatever"));
}

#[test]
fn the_nearest_refusal_is_told() {
    let user = user("+get ~k* (+set ~s* &c*) +publish (+publish &d)");
    assert_eq!(check(&user, "get k1"), Ok(()));
    assert_eq!(check(&user, "get s1"), Err(Denied::Key(1)));
    assert_eq!(check(&user, "set s1 v"), Ok(()));
    assert_eq!(check(&user, "set k1 v"), Err(Denied::Key(1)));
    assert_eq!(check(&user, "del k1"), Err(Denied::Command));
    assert_eq!(check(&user, "publish d m"), Ok(()));
    assert_eq!(check(&user, "publish c m"), Err(Denied::Channel(1)));
    assert_eq!(check(&user, "auth x"), Ok(()), "all may log in");
}

#[test]
fn patterns_of_psubscribe_are_literal() {
    let user = user("+subscribe +psubscribe &c*");
    assert_eq!(check(&user, "subscribe c1"), Ok(()));
    assert_eq!(check(&user, "psubscribe c*"), Ok(()));
    assert_eq!(check(&user, "psubscribe c1*"), Err(Denied::Channel(1)));
}

#[test]
fn users_come_back_from_their_lines() {
    let mut users = Users::new();
    assert!(users.lines_beside(None).is_empty());
    users.set_default_password(Some(b"p"));
    assert!(users.lines_beside(Some(b"p")).is_empty());
    assert_eq!(users.lines_beside(None).len(), 1);
    for (name, line) in [
        (&b"app"[..], "on >x ~app:* +@all -@dangerous (+keys ~é)"),
        (b"", "nopass +select|0 %R~q &c"),
        (DEFAULT, "off"),
    ] {
        let user = users.staged(name, &rules(line)).expect("rules");
        users.put(name, user);
    }
    let lines = users.lines_beside(Some(b"p"));
    assert_eq!(lines.len(), 3);
    let mut again = Users::new();
    again.load(lines.iter().map(Vec::as_slice)).expect("lines");
    assert_eq!(again.lines(), users.lines());
    assert!(!again.is_open());
}

#[test]
fn lines_that_are_none_are_refused_whole() {
    let mut users = Users::new();
    for (lines, told) in [
        (
            vec!["user a on", "app on"],
            "it does not begin with `user` and a name",
        ),
        (
            vec!["user a on", "user a off"],
            "there are two lines for user a",
        ),
        (vec!["user a (+get"], "a selector of user a has no end"),
        (vec!["user a <pw"], "user a, rule <(a password)"),
    ] {
        let error = users.load(lines.iter().map(|line| line.as_bytes()));
        let text = error.expect_err("refused").to_string();
        assert!(text.starts_with(told), "{text}");
        assert_eq!(users.iter().len(), 1);
    }
}

#[test]
fn alike_refusals_are_counted() {
    let mut log = RefusalLog::default();
    let event = |object: &str, at_ms| Event {
        reason: Reason::Key,
        context: Surroundings::Toplevel,
        object: object.into(),
        user: b"u".to_vec(),
        client: format!("at {at_ms}"),
        at_ms,
        count: 1,
    };
    for (object, at_ms) in [("a", 0), ("b", 1), ("a", 60_000), ("a", 130_000)] {
        log.note(event(object, at_ms), 128);
    }
    let counts: Vec<_> = log
        .last(10)
        .map(|of| (of.count, of.client.clone()))
        .collect();
    let counts: Vec<_> = counts.iter().map(|(n, at)| (*n, at.as_str())).collect();
    assert_eq!(counts, [(1, "at 130000"), (2, "at 60000"), (1, "at 1")]);
    log.note(event("c", 130_001), 2);
    assert_eq!(log.last(10).len(), 2);
    log.clear();
    assert_eq!(log.last(10).len(), 0);
}
