//! `keyferry check`: parse, lint, and dial every shard if asked.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::config::{self, Config, ConfigError};
use crate::proxy::config::{Compat, PoolConfig, Protocol};
use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::router::layout::{Layout, Shard};
use crate::router::spec::DistributionKind;
use crate::upstream::config::UpstreamConfig;
use crate::upstream::memcached::memcached_version;
use crate::upstream::session::Session;

use super::ConfigFile;
use super::exit::ExitStatus;
use super::output::{fail, finish, print_error, stdout, write_json};

/// Arguments of `keyferry check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Also connect to every shard, authenticate and PING (memcached: version)
    #[arg(long)]
    connect: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// One shard and how dialling it went.
struct ShardReport {
    shard: Shard,
    dialled: Option<Result<u128, String>>,
}

/// One pool and its shards.
struct PoolReport<'c> {
    pool: &'c PoolConfig,
    shards: Vec<ShardReport>,
}

/// Runs `keyferry check`.
pub fn run(args: &CheckArgs) -> ExitStatus {
    let file = &args.config.file;
    let config = match config::load(file) {
        Ok(config) => config,
        Err(error) => return refuse(args, &error),
    };
    let reports = match dial_all(&config, args.connect) {
        Ok(reports) => reports,
        Err(error) => {
            fail(
                &format!("cannot start dialling: {error}"),
                "try again without --connect",
            );
            return ExitStatus::Failed;
        }
    };
    let warnings = lint(file, &config);
    let all_up = reports
        .iter()
        .flat_map(|pool| &pool.shards)
        .all(|shard| !matches!(shard.dialled, Some(Err(_))));
    let mut out = stdout();
    let written = if args.json {
        write_json(&mut out, &object(file, &reports, &warnings))
    } else {
        write_text(&mut out, file, &reports)
    };
    if !args.json {
        warnings
            .iter()
            .for_each(|warning| print_error(&format!("warning: {warning}")));
    }
    finish(
        out,
        written,
        if all_up {
            ExitStatus::Done
        } else {
            ExitStatus::Failed
        },
    )
}

fn refuse(args: &CheckArgs, error: &ConfigError) -> ExitStatus {
    if !args.json {
        print_error(&error.to_string());
        return ExitStatus::Usage;
    }
    let problems = match error {
        ConfigError::Wrong(problems) => problems
            .iter()
            .map(|problem| {
                let at = &problem.at;
                json!({
                    "what": problem.what, "file": at.file, "line": at.line, "column": at.column,
                    "text": at.text, "help": problem.help,
                })
            })
            .collect(),
        ConfigError::Unreadable { file, cause } => {
            vec![json!({"what": format!("cannot read the config: {cause}"), "file": file})]
        }
    };
    let mut out = stdout();
    let object = json!({"v": 1, "file": args.config.file, "ok": false, "problems": problems});
    let written = write_json(&mut out, &object);
    finish(out, written, ExitStatus::Usage)
}

fn dial_all(config: &Config, connect: bool) -> io::Result<Vec<PoolReport<'_>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let reports = config.pools.iter().map(|pool| {
        // A config that loaded has layouts that can be made.
        let layout = Layout::new(pool.layout.clone()).ok();
        let shards = layout
            .iter()
            .flat_map(Layout::shards)
            .map(|shard| ShardReport {
                shard: shard.clone(),
                dialled: connect.then(|| runtime.block_on(dial(shard, pool))),
            });
        PoolReport {
            pool,
            shards: shards.collect(),
        }
    });
    Ok(reports.collect())
}

/// Microseconds until the shard answered a PING, or `version` if it is a
/// memcached; or why it did not.
async fn dial(shard: &Shard, pool: &PoolConfig) -> Result<u128, String> {
    let upstream = &pool.upstream;
    // Without a bound a shard that hangs would hang the check.
    let bounded = UpstreamConfig {
        request_timeout: upstream.request_timeout.or(Some(upstream.connect_timeout)),
        ..upstream.clone()
    };
    let start = Instant::now();
    if pool.protocol == Protocol::Memcached {
        let asked = memcached_version(&shard.address, &bounded).await;
        return asked
            .map(|_| start.elapsed().as_micros())
            .map_err(|error| error.to_string());
    }
    let mut session = Session::connect(&shard.address, &bounded)
        .await
        .map_err(|error| error.to_string())?;
    match session.call(&[b"PING"]).await {
        Ok(Value::Error(error)) => Err(format!(
            "shard {}: {}",
            shard.address,
            String::from_utf8_lossy(&error)
        )),
        Ok(_) => Ok(start.elapsed().as_micros()),
        Err(error) => Err(error.to_string()),
    }
}

/// What is allowed and may still be regretted.
fn lint(file: &Path, config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let has_secret = config.admin.token.is_some()
        || config
            .pools
            .iter()
            .any(|pool| pool.upstream.credentials.is_some() || pool.auth.is_some());
    let mode = std::fs::metadata(file)
        .map(|meta| meta.permissions().mode())
        .unwrap_or(0);
    if has_secret && mode & 0o004 != 0 {
        warnings.push(format!(
            "{} names secrets and everybody may read it; chmod o-r, or keep them in \"file:/path\"",
            file.display()
        ));
    }
    for pool in &config.pools {
        let name = &pool.name;
        if pool.timeouts.request.is_none() {
            warnings.push(format!(
                "pool `{name}`: timeout.request is none, so a shard that hangs makes clients wait for ever"
            ));
        }
        warnings.extend(database_of_original(pool));
        let unnamed = pool
            .layout
            .shards
            .iter()
            .filter(|shard| shard.name.is_none())
            .count();
        if unnamed > 0 && pool.layout.distribution == DistributionKind::Ketama {
            warnings.push(format!(
                "pool `{name}`: {unnamed} shards have no name, so their keys move when their address changes"
            ));
        }
    }
    warnings
}

/// Data that goes to database 0 because twemproxy's does.
fn database_of_original(pool: &PoolConfig) -> Option<String> {
    if pool.compat == Compat::Redis || pool.database == 0 {
        return None;
    }
    let (name, database) = (&pool.name, pool.database);
    let mut addresses = pool.layout.shards.iter().map(|shard| shard.addr.parse());
    let has_socket = addresses.any(|address| matches!(address, Ok(ShardAddress::Unix(_))));
    let why = match (&pool.upstream.credentials, has_socket) {
        (Some(_), _) => "SELECT is sent before AUTH, and refused where a password is needed",
        (None, true) => "no SELECT is sent to unix sockets",
        (None, false) => return None,
    };
    Some(format!(
        "pool `{name}`: with compat = \"twemproxy\" its keys may be in database 0 instead of {database}, as twemproxy's are: {why}"
    ))
}

fn write_text(out: &mut impl Write, file: &Path, reports: &[PoolReport<'_>]) -> io::Result<()> {
    writeln!(out, "{}: ok", file.display())?;
    for report in reports {
        let pool = report.pool;
        let listen: Vec<_> = pool.listen.iter().map(ToString::to_string).collect();
        let (hash, distribution) = (pool.layout.hash, pool.layout.distribution);
        writeln!(
            out,
            "pool {}: {}, {hash} {distribution}",
            pool.name,
            listen.join(" ")
        )?;
        for ShardReport { shard, dialled } in &report.shards {
            write!(
                out,
                "  {}\t{}\tweight {}",
                shard.name, shard.address, shard.weight
            )?;
            match dialled {
                None => writeln!(out)?,
                Some(Ok(micros)) => writeln!(out, "\tup, answered in {micros} us")?,
                Some(Err(error)) => writeln!(out, "\tDOWN: {error}")?,
            }
        }
    }
    Ok(())
}

fn object(file: &Path, reports: &[PoolReport<'_>], warnings: &[String]) -> Json {
    let shard = |report: &ShardReport| {
        let mut object = json!({
            "name": report.shard.name,
            "address": report.shard.address.to_string(),
            "weight": report.shard.weight,
        });
        match &report.dialled {
            None => {}
            Some(Ok(micros)) => object["connect"] = json!({"ok": true, "micros": *micros as u64}),
            Some(Err(error)) => object["connect"] = json!({"ok": false, "error": error}),
        }
        object
    };
    let pools = reports.iter().map(|report| {
        let pool = report.pool;
        json!({
            "name": pool.name,
            "listen": pool.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "hash": pool.layout.hash.to_string(),
            "distribution": pool.layout.distribution.to_string(),
            "shards": report.shards.iter().map(shard).collect::<Vec<_>>(),
        })
    });
    json!({
        "v": 1, "file": file, "ok": true,
        "pools": pools.collect::<Vec<_>>(), "warnings": warnings,
    })
}
