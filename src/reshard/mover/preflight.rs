//! Looks at every server before anything is changed: reachable, a master, fit
//! to be tapped or filled, with a clock like the others'. Leaves nothing behind.

use std::time::Instant;

use crate::rdb::{RawValue, ValueType};
use crate::resp::Value;
use crate::restore::{Dialect, KeyHead, Overwrite, Reply, Requests, RestoreOptions, Restorer};
use crate::router::address::ShardAddress;

use super::clocks::{check_clocks, sample};
use super::config::{Attach, MoverConfig};
use super::error::{MoveError, Role};
use super::keyspace::databases;
use super::link::{Link, info_field};
use super::marker::MARKER_CHANNEL;
use super::placement::Placement;
use super::start::dialect_of;
use super::walk::why_refused;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreflightReport {
    /// The old servers.
    pub sources: Vec<ServerReport>,
    /// The new servers; one may be a source, too.
    pub targets: Vec<ServerReport>,
    /// Things that may go wrong later, one sentence each.
    pub warnings: Vec<String>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReport {
    /// Its address.
    pub server: ShardAddress,
    /// As the server states it, such as `7.0.15`.
    pub version: String,
    /// What it speaks, by its own word.
    pub dialect: Dialect,
    /// The server's own id, new at each of its starts.
    pub run_id: String,
    /// Keys in all databases.
    pub keys: u64,
    /// Highest database that holds keys.
    pub highest_db: u32,
    /// `maxmemory` in bytes; 0: no limit.
    pub maxmemory_bytes: u64,
    /// `maxmemory-policy`.
    pub maxmemory_policy: String,
}

impl ServerReport {
    fn major(&self) -> u32 {
        let number = self.version.split('.').next();
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

/// Checks all servers of both layouts.
///
/// # Errors
/// The first problem, with the server and the step; nothing was changed.
pub async fn preflight(cfg: &MoverConfig) -> Result<PreflightReport, MoveError> {
    let placement = Placement::new(&cfg.moves);
    let mut report = PreflightReport {
        sources: Vec::new(),
        targets: Vec::new(),
        warnings: Vec::new(),
    };
    let start = Instant::now();
    let mut clocks = Vec::new();
    for server in placement.sources() {
        let mut link = Link::connect(Role::Source, server, &cfg.upstream).await?;
        let found = look(&mut link).await?;
        clocks.push((server.clone(), sample(&mut link, start).await?));
        check_source(&mut link, &cfg.job).await?;
        match cfg.tapping.attach {
            Attach::Psync => check_psync(&mut link, &found).await?,
            Attach::Scan => report.warnings.extend(check_scan(&mut link, cfg).await?),
        }
        report.sources.push(found);
    }
    for (source, replica) in &cfg.tapping.replicas {
        let mut link = Link::connect(Role::Source, replica, &cfg.upstream).await?;
        check_replica(&mut link, cfg, placement.sources(), source).await?;
        // Its snapshot bears its own time.
        clocks.push((replica.clone(), sample(&mut link, start).await?));
    }
    let highest_db = report
        .sources
        .iter()
        .map(|source| source.highest_db)
        .max()
        .unwrap_or(0);
    for server in placement.targets() {
        let mut link = Link::connect(Role::Target, server, &cfg.upstream).await?;
        let found = look(&mut link).await?;
        clocks.push((server.clone(), sample(&mut link, start).await?));
        check_target(&mut link, &found, highest_db, &cfg.job).await?;
        report.targets.push(found);
    }
    check_identities(&report)?;
    check_clocks(&clocks)?;
    let warnings = warnings(&report);
    report.warnings.extend(warnings);
    Ok(report)
}

/// What INFO says; refuses servers that are no standalone masters.
async fn look(link: &mut Link) -> Result<ServerReport, MoveError> {
    let info = link.text("read INFO", &[b"INFO"]).await?;
    let field = |name: &str| info_field(&info, name).unwrap_or_default().to_owned();
    if field("loading") == "1" {
        return Err(link.refuse(
            "read INFO",
            "it is still loading its data: wait, then try again",
        ));
    }
    let role = field("role");
    if role != "master" {
        let why = format!("its role is `{role}`: give the master's address in the layout");
        return Err(link.refuse("check that it is a master", why));
    }
    if field("cluster_enabled") == "1" {
        let why = "it runs in cluster mode, where slots belong to nodes by their own rules: use standalone servers";
        return Err(link.refuse("check that it stands alone", why));
    }
    let dialect = dialect_of(&info, link)?;
    let dbs = databases(link).await?;
    Ok(ServerReport {
        dialect,
        server: link.server().clone(),
        version: field("redis_version"),
        run_id: field("run_id"),
        keys: dbs.iter().map(|(_, keys)| keys).sum(),
        highest_db: dbs.iter().map(|(db, _)| *db).max().unwrap_or(0),
        maxmemory_bytes: field("maxmemory").parse().unwrap_or(0),
        maxmemory_policy: field("maxmemory_policy"),
    })
}

/// What any source must let us do.
async fn check_source(link: &mut Link, job: &str) -> Result<(), MoveError> {
    let message = format!("{job}:preflight");
    let args: [&[u8]; 3] = [b"PUBLISH", MARKER_CHANNEL, message.as_bytes()];
    let publish = link.ask("check PUBLISH", &args).await?;
    accepted(
        publish,
        link,
        "check PUBLISH",
        "markers are published on each source",
    )?;
    let scan = link
        .ask("check SCAN", &[b"SCAN", b"0", b"COUNT", b"1"])
        .await?;
    accepted(scan, link, "check SCAN", "verification lists the keys")
}

async fn check_psync(link: &mut Link, found: &ServerReport) -> Result<(), MoveError> {
    const PSYNC: &str = "check PSYNC";
    let known = link.ask(PSYNC, &[b"COMMAND", b"INFO", b"PSYNC"]).await?;
    if matches!(&known, Value::Array(items) if matches!(items.as_slice(), [Value::Null])) {
        let why = "the server does not offer PSYNC (renamed or disabled): allow it, or tap a replica that does; --attach scan does without, and promises less: changes that its notifications do not tell of are found by verify only";
        return Err(link.refuse(PSYNC, why));
    }
    if found.major() < 7 {
        return Ok(());
    }
    let whoami = link.ask(PSYNC, &[b"ACL", b"WHOAMI"]).await?;
    let Some(user) = whoami.as_bytes() else {
        return Ok(());
    };
    let dry = link
        .ask(PSYNC, &[b"ACL", b"DRYRUN", user, b"PSYNC", b"?", b"-1"])
        .await?;
    // +OK when allowed, a sentence when not, an error when DRYRUN itself is refused.
    if let Value::Bulk(sentence) = dry {
        let sentence = String::from_utf8_lossy(&sentence).into_owned();
        let why = format!(
            "{sentence}: allow +psync +replconf +ping, or use --attach scan, which promises less"
        );
        return Err(link.refuse(PSYNC, why));
    }
    Ok(())
}

/// What a source must let us do that is walked through; a warning if changes
/// have to be found by repeated passes.
async fn check_scan(link: &mut Link, cfg: &MoverConfig) -> Result<Option<String>, MoveError> {
    const NEED: &str = "a source without PSYNC is read by it";
    if let Some((source, replica)) = cfg.tapping.replicas.first_key_value() {
        let why = format!("--replica {source}={replica} goes with --attach psync only");
        return Err(link.refuse("check --attach scan", why));
    }
    let key = format!("__keyferry:{}:preflight", cfg.job);
    let key = key.as_bytes();
    let requests: [(&'static str, &[&[u8]]); 5] = [
        ("check DUMP", &[b"DUMP", key]),
        ("check PTTL", &[b"PTTL", key]),
        ("check TIME", &[b"TIME"]),
        ("check MULTI", &[b"MULTI"]),
        ("check EXEC", &[b"EXEC"]),
    ];
    for (step, args) in requests {
        let reply = link.ask(step, args).await?;
        accepted(reply, link, step, NEED)?;
    }
    // A connection that listens takes few other commands.
    let mut listening = Link::connect(Role::Source, link.server(), &cfg.upstream).await?;
    for (step, args) in [
        ("check SUBSCRIBE", [&b"SUBSCRIBE"[..], MARKER_CHANNEL]),
        ("check PSUBSCRIBE", [b"PSUBSCRIBE", b"__keyevent@*__:*"]),
    ] {
        let reply = listening.ask(step, &args).await?;
        accepted(reply, &listening, step, "changes are listened for")?;
    }
    let refused = why_refused(link).await?;
    Ok(refused.map(|why| {
        format!(
            "source {} does not let us switch keyspace notifications on ({why}): all its keys are read again and again, and a switch takes one such pass; give --hold longer than that",
            link.server()
        )
    }))
}

/// A replica that is to be read must be one of the source, and well.
async fn check_replica(
    link: &mut Link,
    cfg: &MoverConfig,
    sources: &[ShardAddress],
    source: &ShardAddress,
) -> Result<(), MoveError> {
    const STEP: &str = "check the replica to read from";
    if !sources.contains(source) {
        let why = format!(
            "it was given for {source}, which is no old shard: write the shard's address as the layout does"
        );
        return Err(link.refuse(STEP, why));
    }
    let info = link.text(STEP, &[b"INFO", b"replication"]).await?;
    let mut of_source = Link::connect(Role::Source, source, &cfg.upstream).await?;
    let source_info = of_source.text(STEP, &[b"INFO", b"replication"]).await?;
    let history = |info: &str| info_field(info, "master_replid").map(str::to_owned);
    if info_field(&info, "role") != Some("slave") || history(&info) != history(&source_info) {
        return Err(link.refuse(STEP, format!("it is no replica of {source}")));
    }
    if info_field(&info, "master_link_status") != Some("up") {
        let why = "its link to its master is down: wait until it is up, then try again";
        return Err(link.refuse(STEP, why));
    }
    Ok(())
}

async fn check_target(
    link: &mut Link,
    found: &ServerReport,
    highest_db: u32,
    job: &str,
) -> Result<(), MoveError> {
    const RESTORE: &str = "check RESTORE";
    const SELECT: &str = "check the number of databases (SELECT)";
    if !found.dialect.removes_in_background() {
        let why = format!(
            "{} has no UNLINK: use Redis 4.0 or later",
            found.dialect.identity()
        );
        return Err(link.refuse("check the version", why));
    }
    let select = link
        .ask(SELECT, &[b"SELECT", highest_db.to_string().as_bytes()])
        .await?;
    accepted(select, link, SELECT, "a source has keys in this database")?;
    // Its time to live ended in 1970: the server takes all of it and keeps nothing.
    let key = format!("__keyferry:{job}:preflight");
    let value = RawValue {
        type_id: ValueType::String,
        bytes: &[0xc0, 0x0a],
    };
    let options = RestoreOptions::new(Overwrite::Always, format!("{job}:preflight"));
    let mut restorer = Restorer::new(found.dialect, options);
    let (mut bytes, mut replies) = (Vec::new(), Vec::new());
    let mut requests = Requests {
        bytes: &mut bytes,
        replies: &mut replies,
    };
    let head = KeyHead {
        key: key.as_bytes(),
        expires_at_ms: Some(1),
        ..KeyHead::default()
    };
    if restorer.whole(&mut requests, &head, &value).is_ok() {
        link.queue_encoded(&bytes);
        link.flush(RESTORE).await?;
        for reply in replies {
            let value = link.read(RESTORE).await?;
            let expired_already =
                matches!(reply, Reply::AcceptedOrExpired | Reply::UnoccupiedOrExpired);
            if !expired_already {
                accepted(value, link, RESTORE, "every key arrives by RESTORE")?;
            }
        }
    }
    let scan = link
        .ask("check SCAN", &[b"SCAN", b"0", b"COUNT", b"1"])
        .await?;
    accepted(
        scan,
        link,
        "check SCAN",
        "keys already there are looked for",
    )
}

/// An error reply refuses the job, with what we need the command for.
fn accepted(reply: Value, link: &Link, step: &'static str, need: &str) -> Result<(), MoveError> {
    match reply {
        Value::Error(text) => {
            let text = String::from_utf8_lossy(&text);
            Err(link.refuse(step, format!("{text} ({need}: allow it for our user)")))
        }
        _ => Ok(()),
    }
}

/// Two spellings of one server would make it move keys onto itself.
fn check_identities(report: &PreflightReport) -> Result<(), MoveError> {
    let all: Vec<&ServerReport> = report.sources.iter().chain(&report.targets).collect();
    for (at, first) in all.iter().enumerate() {
        let twin = all.iter().skip(at + 1).find(|second| {
            !first.run_id.is_empty()
                && first.run_id == second.run_id
                && first.server != second.server
        });
        if let Some(second) = twin {
            return Err(MoveError::SameServer {
                first: first.server.clone(),
                second: second.server.clone(),
                run_id: first.run_id.clone(),
            });
        }
    }
    Ok(())
}

fn warnings(report: &PreflightReport) -> Vec<String> {
    let mut warnings = Vec::new();
    for source in report
        .sources
        .iter()
        .filter(|source| (1..7).contains(&source.major()))
    {
        warnings.push(format!(
            "source {} ({}) sends relative expiry times: those set while the job runs end later by the lag",
            source.server, source.version
        ));
    }
    for target in &report.targets {
        if target.maxmemory_bytes > 0 && target.maxmemory_policy != "noeviction" {
            warnings.push(format!(
                "target {} evicts keys ({}) at {} bytes: moved keys may vanish there before the switch",
                target.server, target.maxmemory_policy, target.maxmemory_bytes
            ));
        }
        let newer = report
            .sources
            .iter()
            .find(|source| !target.dialect.understands(&source.dialect));
        if let Some(source) = newer {
            warnings.push(format!(
                "target {} ({}) does not understand all of source {} ({}): what it cannot hold will be reported by key",
                target.server,
                target.dialect.identity(),
                source.server,
                source.dialect.identity()
            ));
        }
    }
    warnings
}
