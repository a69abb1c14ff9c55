//! MIGRATE: keys go to another server, and are removed here when they are there.
//!
//! ```text
//! AUTH, SELECT, RESTORE.. --courier--> replies: a key whose RESTORE is answered by no
//!                                      error is there, and is removed here (not with COPY)
//! ```
//! As in Redis, nobody else is served meanwhile; no longer than [`WAIT_MS_MAX`] for any one
//! step. What has no answer stays: it may be on both servers then.

use std::fmt::Debug;
use std::time::Duration;

use crate::resp::write_command;
use crate::store::commands::table::{Command, Keys, Run, Verb};
use crate::store::commands::{Args, Failure, OwnedRequest, Reply, Unit, Waits, payload_of};

use super::shard::{MasterAddress, Shard};

/// Longest wait for a connection or an answer, whatever a client asks for.
const WAIT_MS_MAX: u64 = 60_000;
/// The wait when none is said.
const WAIT_MS_DEFAULT: u64 = 1_000;

/// The family.
pub const COMMANDS: &[Command] = &[Command {
    name: "migrate",
    arity: -6,
    flags: "write movablekeys",
    keys: Keys::Range {
        first: 3,
        last: 3,
        step: 1,
    },
    categories: "keyspace dangerous",
    run: Run::Session(Verb::Migrate),
}];

/// Carries requests to another server: the driver, who has sockets.
pub trait Courier: Debug + Send {
    /// Sends requests, and gives as many replies, as they came; or as many as came.
    fn carry(
        &mut self,
        to: &MasterAddress,
        requests: &[u8],
        replies: usize,
        wait: Duration,
    ) -> Carried;
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// In the order of the requests.
    pub replies: Vec<Vec<u8>>,
    /// Why there are no more.
    pub lost: Option<Lost>,
}

/// Where a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There was none.
    Connecting,
    /// It took no bytes.
    Writing,
    /// It gave no reply in time.
    Reading,
}

/// There is none: nothing can be reached.
#[derive(Debug)]
pub(super) struct NoCourier;

impl Courier for NoCourier {
    fn carry(&mut self, _: &MasterAddress, _: &[u8], _: usize, _: Duration) -> Carried {
        Carried {
            replies: Vec::new(),
            lost: Some(Lost::Connecting),
        }
    }
}

/// What is asked for.
#[derive(Debug)]
struct Wish<'a> {
    to: MasterAddress,
    db: i64,
    wait: Duration,
    copies: bool,
    replaces: bool,
    /// User and password.
    login: Option<(Option<&'a [u8]>, &'a [u8])>,
    keys: Vec<&'a [u8]>,
}

impl<'a> Wish<'a> {
    fn parse(args: Args<'a>) -> Result<Self, Failure> {
        let (mut copies, mut replaces, mut login) = (false, false, None);
        let mut keys = vec![args.at(3)];
        let mut at = 6;
        while at < args.len() {
            let left = args.len() - at - 1;
            if args.is(at, "COPY") {
                copies = true;
            } else if args.is(at, "REPLACE") {
                replaces = true;
            } else if args.is(at, "AUTH") && left >= 1 {
                login = Some((None, args.at(at + 1)));
                at += 1;
            } else if args.is(at, "AUTH2") && left >= 2 {
                login = Some((Some(args.at(at + 1)), args.at(at + 2)));
                at += 2;
            } else if args.is(at, "KEYS") {
                if !args.at(3).is_empty() {
                    return Err(Failure::words(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to \
                         the empty string",
                    ));
                }
                keys = args.from(at + 1).collect();
                break;
            } else {
                return Err(Failure::SYNTAX);
            }
            at += 1;
        }
        let (wait_ms, db) = (args.integer(5)?, args.integer(4)?);
        let wait_ms = match u64::try_from(wait_ms) {
            Ok(wait_ms @ 1..) => wait_ms.min(WAIT_MS_MAX),
            _ => WAIT_MS_DEFAULT,
        };
        let port = std::str::from_utf8(args.at(2)).ok();
        Ok(Self {
            to: MasterAddress {
                host: String::from_utf8_lossy(args.at(1)).into_owned(),
                // As Redis takes it: nobody listens there.
                port: port.and_then(|port| port.parse().ok()).unwrap_or(0),
            },
            db,
            wait: Duration::from_millis(wait_ms),
            copies,
            replaces,
            login,
            keys,
        })
    }

    /// Requests that stand before the keys', and how many.
    fn greeting(&self, requests: &mut Vec<u8>) -> usize {
        match self.login {
            Some((Some(user), password)) => write_command(requests, &[b"AUTH", user, password]),
            Some((None, password)) => write_command(requests, &[b"AUTH", password]),
            None => {}
        }
        let db = self.db.to_string();
        write_command(requests, &[b"SELECT", db.as_bytes()]);
        1 + usize::from(self.login.is_some())
    }
}

impl Shard {
    /// Who carries what MIGRATE sends.
    pub fn set_courier(&mut self, courier: Box<dyn Courier>) {
        self.courier = courier;
    }

    pub(super) fn migrate(
        &mut self,
        key: usize,
        args: Args<'_>,
        unit: &mut Unit,
    ) -> Result<(), Failure> {
        let wish = Wish::parse(args)?;
        let db = self.clients[key].db;
        let mut requests = Vec::new();
        let greetings = wish.greeting(&mut requests);
        let mut sent: Vec<&[u8]> = Vec::new();
        for name in &wish.keys {
            let Some(object) = self.keyspace.lookup(db, name)? else {
                continue;
            };
            let payload = payload_of(self.keyspace.rows_read(), &object.value)?;
            let now_ms = self.keyspace.now_ms();
            let left_ms = object
                .expires_at_ms
                .map_or(0, |at| at.saturating_sub(now_ms).max(1));
            let left = left_ms.to_string();
            let mut words: Vec<&[u8]> = vec![b"RESTORE", name, left.as_bytes(), &payload];
            if wish.replaces {
                words.push(b"REPLACE");
            }
            write_command(&mut requests, &words);
            sent.push(name);
        }
        if sent.is_empty() {
            self.clients[key].reply.status("NOKEY");
            return Ok(());
        }
        let replies = greetings + sent.len();
        let carried = self.courier.carry(&wish.to, &requests, replies, wish.wait);
        let (greeted, restored) = carried
            .replies
            .split_at(greetings.min(carried.replies.len()));
        let is_error = |reply: &&Vec<u8>| reply.first() == Some(&b'-');
        let mut refused = greeted.iter().find(is_error);
        let mut there: Vec<&[u8]> = Vec::new();
        if refused.is_none() {
            refused = restored.iter().find(is_error);
            let pairs = sent.iter().zip(restored);
            let taken = pairs.filter(|(_, reply)| !is_error(reply));
            there.extend(taken.map(|(name, _)| *name));
        }
        if !wish.copies && !there.is_empty() {
            self.remove_migrated(db, &there, unit)?;
        }
        if let Some(refused) = refused {
            let words = refused
                .strip_prefix(b"-")
                .unwrap_or(refused)
                .trim_ascii_end();
            let told = b"ERR Target instance replied with error: ";
            return Err(Failure::Reply([told, words].concat().into()));
        }
        match carried.lost {
            None => {
                self.clients[key].reply.ok();
                Ok(())
            }
            Some(lost) => Err(Failure::words(match lost {
                Lost::Connecting => "IOERR error or timeout connecting to the client",
                Lost::Writing => "IOERR error or timeout writing to target instance",
                Lost::Reading => "IOERR error or timeout reading from target instance",
            })),
        }
    }

    /// As DEL does, which is what the log and replicas are told.
    fn remove_migrated(
        &mut self,
        db: usize,
        there: &[&[u8]],
        unit: &mut Unit,
    ) -> Result<(), Failure> {
        let words: Vec<&[u8]> = std::iter::once(&b"DEL"[..])
            .chain(there.iter().copied())
            .collect();
        let request = OwnedRequest::from_words(&words);
        let request = request.ok_or(Failure::words("ERR these are too many keys at once"))?;
        let Some(Run::Data(handler)) = self.table.find(b"del").map(|command| command.run) else {
            return Ok(());
        };
        let mut reply = Reply::default();
        self.run_data(&mut reply, db, handler, request.args(), unit, Waits::Never);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::store::session::world::World;

    /// Requests, and how many replies they want.
    type Taken = (Vec<u8>, usize);

    /// Keeps what it is given, and answers what it was told to.
    #[derive(Clone, Debug, Default)]
    struct Scripted {
        taken: Arc<Mutex<Vec<Taken>>>,
        answers: Vec<&'static str>,
        lost: Option<Lost>,
    }

    impl Courier for Scripted {
        fn carry(&mut self, _: &MasterAddress, requests: &[u8], n: usize, _: Duration) -> Carried {
            self.taken.lock().expect("whole").push((requests.into(), n));
            Carried {
                replies: self.answers.iter().map(|of| of.as_bytes().into()).collect(),
                lost: self.lost,
            }
        }
    }

    fn world(answers: &[&'static str], lost: Option<Lost>) -> (World, usize, Scripted) {
        let mut world = World::new();
        let client = world.client();
        world.say(client, "MSET a 1 b 2");
        world.effects();
        let courier = Scripted {
            answers: answers.to_vec(),
            lost,
            ..Scripted::default()
        };
        world.shard.set_courier(Box::new(courier.clone()));
        (world, client, courier)
    }

    fn migrate(world: &mut World, client: usize, tail: &[&[u8]]) -> String {
        let head: [&[u8]; 6] = [b"MIGRATE", b"h", b"1", b"", b"3", b"100"];
        world.send(client, &[&head, tail].concat())
    }

    #[test]
    fn keys_that_are_there_are_removed_here() {
        let (mut world, client, courier) = world(&["+OK\r\n", "+OK\r\n", "+OK\r\n"], None);
        let tail: [&[u8]; 4] = [b"KEYS", b"a", b"none", b"b"];
        assert_eq!(migrate(&mut world, client, &tail), "OK");
        assert_eq!(world.effects(), "DEL a b");
        assert_eq!(world.say(client, "EXISTS a b"), ":0");
        let taken = courier.taken.lock().expect("whole");
        let (requests, replies) = taken.first().expect("one");
        assert_eq!(*replies, 3);
        assert!(requests.starts_with(b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*4\r\n$7\r\nRESTORE"));
    }

    #[test]
    fn what_has_no_answer_or_is_refused_stays() {
        let busy = "-BUSYKEY Target key name already exists.\r\n";
        let answers = ["+OK\r\n", "+OK\r\n", busy, "+OK\r\n"];
        let (mut world, client, _) = world(&answers, None);
        let tail: [&[u8]; 5] = [b"AUTH", b"p", b"KEYS", b"a", b"b"];
        assert_eq!(
            migrate(&mut world, client, &tail),
            "-ERR Target instance replied with error: BUSYKEY Target key name already exists."
        );
        assert_eq!(world.say(client, "GET a"), "1");
        assert_eq!(world.say(client, "EXISTS b"), ":0");
        let (mut world, client, _) = self::world(&["+OK\r\n", "+OK\r\n"], Some(Lost::Reading));
        assert_eq!(
            migrate(&mut world, client, &[b"KEYS", b"a", b"b"]),
            "-IOERR error or timeout reading from target instance"
        );
        assert_eq!(world.effects(), "DEL a");
        let (mut world, client, _) = self::world(&["-ERR DB index is out of range\r\n"], None);
        let told = migrate(&mut world, client, &[b"KEYS", b"a"]);
        assert!(
            told.ends_with("error: ERR DB index is out of range"),
            "{told}"
        );
        assert_eq!(world.effects(), "");
    }

    #[test]
    fn a_copy_stays_and_wrong_words_are_told() {
        let (mut world, client, _) = world(&["+OK\r\n", "+OK\r\n"], None);
        let tail: [&[u8]; 4] = [b"COPY", b"REPLACE", b"KEYS", b"a"];
        assert_eq!(migrate(&mut world, client, &tail), "OK");
        assert_eq!(world.say(client, "GET a"), "1");
        assert_eq!(migrate(&mut world, client, &[b"KEYS", b"none"]), "NOKEY");
        assert_eq!(migrate(&mut world, client, &[b"KEYS"]), "NOKEY");
        for (line, told) in [
            ("MIGRATE h 1 a 0 1 NO", "-ERR syntax error"),
            ("MIGRATE h 1 a 0 1 AUTH2 u", "-ERR syntax error"),
            (
                "MIGRATE h 1 a 0 x",
                "-ERR value is not an integer or out of range",
            ),
            (
                "MIGRATE h 1 a 0 1 KEYS a",
                "-ERR When using MIGRATE KEYS option, the key argument must be set to the empty \
                 string",
            ),
        ] {
            assert_eq!(world.say(client, line), told);
        }
    }
}
