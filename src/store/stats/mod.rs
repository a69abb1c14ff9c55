//! What an operator sees of a shard: read from its INFO, whoever was asked for that.

use std::collections::BTreeMap;

use serde::Serialize;

use super::client::{ClientError, Connection, Target};

/// A text that is no INFO of a built-in shard.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// It cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It is another server.
    #[error("it is no built-in shard: its INFO has no `{0}`")]
    Foreign(&'static str),
}

/// See the head of the file. Offsets are bytes of the stream of effects.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShardStats {
    /// Of the program.
    pub version: String,
    /// `master` or `slave`.
    pub role: String,
    /// Whom it follows, and whether it has that one's stream.
    pub master: Option<MasterSeen>,
    /// Since it started.
    pub uptime_s: u64,
    /// `always`, `everysec`, `no`.
    pub durability: String,
    /// `good`, or why no writes are taken.
    pub health: String,
    /// Those that have keys.
    pub databases: Vec<Database>,
    /// The log.
    pub log: LogStats,
    /// The engine behind it.
    pub engine: EngineStats,
    /// Files.
    pub disk: DiskStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Clients now, and commands so far.
    pub clients: u64,
    /// Commands since the start.
    pub commands: u64,
    /// Replicas.
    pub replicas: Vec<ReplicaSeen>,
    /// Its history.
    pub replid: String,
}

/// A master that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MasterSeen {
    /// Where.
    pub address: String,
    /// Its stream comes.
    pub is_up: bool,
}

/// Keys of one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Database {
    /// Its number.
    pub db: u32,
    /// Keys.
    pub keys: u64,
    /// Those that expire.
    pub expires: u64,
}

/// See [`ShardStats::log`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LogStats {
    /// Oldest offset that it has.
    pub start_offset: u64,
    /// Its end.
    pub end_offset: u64,
    /// Up to where it survives a power loss.
    pub durable_offset: u64,
    /// Its files that hold effects.
    pub segments: u64,
    /// Written to it since the start.
    pub appended_bytes: u64,
}

/// See [`ShardStats::engine`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EngineStats {
    /// What of the log it has.
    pub applied_offset: u64,
    /// ..so that it survives a power loss.
    pub durable_offset: u64,
    /// Table files.
    pub tables: u64,
    /// Runs of tables that every read looks through.
    pub level0_runs: u64,
    /// Compactions that run now.
    pub compactions: u64,
    /// Generations of the overlay that wait for it.
    pub generations_waiting: u64,
    /// Deleted objects whose rows are not all gone.
    pub sweep_backlog: u64,
    /// What the process made the disk write since the start.
    pub process_written_bytes: u64,
    /// That by what was appended to the log.
    pub write_amplification: f64,
}

/// See [`ShardStats::disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DiskStats {
    /// All of the shard's files.
    pub bytes: u64,
    /// The log, with what is prepared for it.
    pub log_bytes: u64,
    /// The engine's tables.
    pub table_bytes: u64,
    /// Left for this user.
    pub free_bytes: u64,
}

/// See [`ShardStats::memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// Of the process.
    pub resident_bytes: u64,
    /// Rows on their way into the engine.
    pub overlay_bytes: u64,
    /// Rows of the engine in no table yet.
    pub memtable_bytes: u64,
    /// Decoded objects.
    pub object_cache_bytes: u64,
    /// Rows of large objects.
    pub row_cache_bytes: u64,
    /// Blocks of tables.
    pub block_cache_bytes: u64,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaSeen {
    /// Where.
    pub address: String,
    /// `wait_bgsave`, `send_bulk`, `online`.
    pub state: String,
    /// What it has.
    pub offset: u64,
    /// What it has not.
    pub behind_bytes: u64,
    /// Since it was heard.
    pub lag_s: u64,
}

/// Asks a shard that runs.
///
/// # Errors
/// [`StatsError`].
pub fn ask(
    target: &Target,
    stop: &std::sync::atomic::AtomicBool,
) -> Result<ShardStats, StatsError> {
    let mut connection = Connection::open(target, stop)?;
    let text = connection.ask(&["INFO", "everything"])?;
    ShardStats::of_info(&text)
}

struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn text(&self, name: &'static str) -> Result<&'a str, StatsError> {
        self.0.get(name).copied().ok_or(StatsError::Foreign(name))
    }

    fn owned(&self, name: &'static str) -> Result<String, StatsError> {
        self.text(name).map(str::to_owned)
    }

    fn number(&self, name: &'static str) -> Result<u64, StatsError> {
        let number = self.text(name)?.parse();
        number.map_err(|_| StatsError::Foreign(name))
    }
}

impl ShardStats {
    /// Of what INFO says.
    ///
    /// # Errors
    /// [`StatsError::Foreign`].
    pub fn of_info(text: &str) -> Result<Self, StatsError> {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        let fields = Fields(pairs.collect());
        let number = |name| fields.number(name);
        let version = fields.owned("keyferry_version")?;
        let end_offset = number("log_end_offset")?;
        Ok(Self {
            version,
            role: fields.owned("role")?,
            master: master_of(&fields),
            uptime_s: number("uptime_in_seconds")?,
            durability: fields.owned("durability")?,
            health: fields.owned("health")?,
            databases: databases_of(&fields),
            log: LogStats {
                start_offset: number("log_start_offset")?,
                end_offset,
                durable_offset: number("log_durable_offset")?,
                segments: number("log_segments")?,
                appended_bytes: number("log_appended_bytes")?,
            },
            engine: EngineStats {
                applied_offset: number("engine_applied_offset")?,
                durable_offset: number("engine_durable_offset")?,
                tables: number("tables")?,
                level0_runs: number("level0_runs")?,
                compactions: number("compactions")?,
                generations_waiting: number("generations_waiting")?,
                sweep_backlog: number("sweep_backlog")?,
                process_written_bytes: number("process_written_bytes")?,
                write_amplification: fields
                    .text("write_amplification")?
                    .parse()
                    .map_err(|_| StatsError::Foreign("write_amplification"))?,
            },
            disk: DiskStats {
                bytes: number("disk_bytes")?,
                log_bytes: number("log_disk_bytes")?,
                table_bytes: number("table_disk_bytes")?,
                free_bytes: number("disk_free_bytes")?,
            },
            memory: MemoryStats {
                resident_bytes: number("used_memory_rss")?,
                overlay_bytes: number("overlay_bytes")?,
                memtable_bytes: number("memtable_bytes")?,
                object_cache_bytes: number("object_cache_bytes")?,
                row_cache_bytes: number("row_cache_bytes")?,
                block_cache_bytes: number("block_cache_bytes")?,
            },
            clients: number("connected_clients")?,
            commands: number("total_commands_processed")?,
            replicas: replicas_of(&fields, end_offset),
            replid: fields.owned("master_replid")?,
        })
    }

    /// Keys of all databases.
    pub fn keys(&self) -> u64 {
        self.databases.iter().map(|of| of.keys).sum()
    }
}

fn master_of(fields: &Fields<'_>) -> Option<MasterSeen> {
    let (host, port) = (fields.0.get("master_host")?, fields.0.get("master_port")?);
    Some(MasterSeen {
        address: format!("{host}:{port}"),
        is_up: fields.0.get("master_link_status") == Some(&"up"),
    })
}

/// `a=1,b=2`.
fn parts(text: &str) -> BTreeMap<&str, &str> {
    text.split(',')
        .filter_map(|part| part.split_once('='))
        .collect()
}

fn part<T: std::str::FromStr + Default>(parts: &BTreeMap<&str, &str>, name: &str) -> T {
    let value = parts.get(name).and_then(|value| value.parse().ok());
    value.unwrap_or_default()
}

fn databases_of(fields: &Fields<'_>) -> Vec<Database> {
    let all = fields.0.iter().filter_map(|(name, value)| {
        let parts = parts(value);
        Some(Database {
            db: name.strip_prefix("db")?.parse().ok()?,
            keys: part(&parts, "keys"),
            expires: part(&parts, "expires"),
        })
    });
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|of| of.db);
    all
}

fn replicas_of(fields: &Fields<'_>, end: u64) -> Vec<ReplicaSeen> {
    let all = fields.0.iter().filter_map(|(name, value)| {
        let _: u32 = name.strip_prefix("slave")?.parse().ok()?;
        let parts = parts(value);
        let offset = part(&parts, "offset");
        Some(ReplicaSeen {
            address: format!(
                "{}:{}",
                part::<String>(&parts, "ip"),
                part::<String>(&parts, "port")
            ),
            state: part(&parts, "state"),
            offset,
            behind_bytes: end.saturating_sub(offset),
            lag_s: part(&parts, "lag"),
        })
    });
    all.collect()
}
